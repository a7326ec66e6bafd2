"""What every server is asked: for each wire, the requests that show how it answers good ones and bad ones."""

from __future__ import annotations

import hashlib
import wave
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.domain.item import File
from orchestrator.wires import (
    OpenAIBatchWire,
    OpenAIChatWire,
    OpenAICompletionsWire,
    OpenAIEmbeddingsWire,
    OpenAIResponsesWire,
    OpenAITranscriptionsWire,
    VllmRerankWire,
    VllmScoreWire,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from orchestrator.wires import Wire

    Case = tuple[str, Wire, Sequence[object]]

QUESTION = "What is the capital of France?"
TOO_LONG = "word " * 9000
NOBODY = "nobody/nothing"
PIXEL = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
LABEL = {
    "type": "function",
    "function": {
        "name": "label",
        "description": "Label the text",
        "parameters": {
            "type": "object",
            "properties": {"label": {"type": "string", "enum": ["good", "bad"]}},
            "required": ["label"],
        },
    },
}


def chat(model: str) -> Iterator[Case]:
    """Yield the cases of chats."""
    wire = OpenAIChatWire(model, {"temperature": 0, "max_tokens": 60}, system="Answer in one sentence.")

    def asking(content: object = QUESTION, role: str = "user", **parameters: object) -> list[object]:
        return [{"messages": [{"role": role, "content": content}], **parameters}]

    yield "an answer", wire, [QUESTION]
    yield "cut off by max_tokens", wire, asking(max_tokens=2)
    yield "too long", wire, [TOO_LONG]
    yield "max_tokens beyond the context", wire, asking(max_tokens=1_000_000)
    yield "an empty text", wire, [""]
    yield (
        "no messages",
        OpenAIBatchWire("/v1/chat/completions", model),
        [{"model": model, "messages": [], "max_tokens": 8}],
    )
    yield "a number for a text", wire, asking(5)
    yield "a text for a number", wire, asking(max_tokens="many")
    yield "a temperature below zero", wire, asking(temperature=-1)
    yield "a role that is none", wire, asking(role="nobody")
    yield "a field that is none", wire, asking(no_such_field=1)
    yield "an image for a text model", wire, asking([{"type": "image_url", "image_url": {"url": PIXEL}}])
    yield "an unknown model", replace(wire, model=NOBODY), [QUESTION]
    yield "a schema", replace(wire, response_format=CITY), [QUESTION]
    yield "a format that is none", wire, asking(response_format={"type": "nonsense"})
    calling = replace(wire, parameters={**wire.parameters, "tools": [LABEL], "tool_choice": "required"})
    yield "a tool", calling, asking("I like it. Label this.")
    yield "a tool, cut off by max_tokens", calling, asking("I like it.", max_tokens=4)
    yield "tools of a wrong type", wire, asking(tools="label")


def completions(model: str) -> Iterator[Case]:
    """Yield the cases of completions."""
    wire = OpenAICompletionsWire(model, {"temperature": 0, "max_tokens": 8})
    yield "two prompts", wire, ["The capital of France is", "One, two, three,"]
    yield "one of two prompts too long", wire, ["The capital of France is", TOO_LONG]
    yield "one of two prompts empty", wire, ["The capital of France is", ""]
    yield "an empty text", wire, [""]
    yield "an unknown model", replace(wire, model=NOBODY), ["The capital of France is"]


def responses(model: str) -> Iterator[Case]:
    """Yield the cases of responses."""
    wire = OpenAIResponsesWire(model, {"temperature": 0, "max_output_tokens": 60})
    yield "an answer", wire, [QUESTION]
    yield (
        "cut off by max_output_tokens",
        replace(wire, parameters={"temperature": 0, "max_output_tokens": 2}),
        [QUESTION],
    )
    yield "too long", wire, [TOO_LONG]
    yield "a number for a text", wire, [[{"role": "user", "content": 5}]]
    yield "an empty text", wire, [""]
    yield "a schema", replace(wire, response_format=CITY), [QUESTION]
    tool = {"type": "function", **LABEL["function"]}  # type: ignore[dict-item]
    calling = {**wire.parameters, "tools": [tool], "tool_choice": "required"}
    yield "a tool", replace(wire, parameters=calling), ["I like it."]
    yield "an unknown model", replace(wire, model=NOBODY), [QUESTION]


def embeddings(model: str) -> Iterator[Case]:
    """Yield the cases of embeddings."""
    wire = OpenAIEmbeddingsWire(model)
    yield "two texts", wire, ["hello", "a longer text"]
    yield "in base64", replace(wire, parameters={"encoding_format": "base64"}), ["hello", "a longer text"]
    yield "too long", wire, [TOO_LONG]
    yield "one of two texts too long", wire, ["hello", TOO_LONG]
    yield "an empty text", wire, [""]
    yield "one of two texts empty", wire, ["hello", ""]
    yield "one of two texts an object", wire, ["hello", {"text": "you"}]
    yield "2,100 texts at once", wire, ["a"] * 2100
    yield "an encoding that is none", replace(wire, parameters={"encoding_format": "roman"}), ["hello"]
    yield "dimensions", replace(wire, parameters={"dimensions": 4}), ["hello"]
    yield "an unknown model", replace(wire, model=NOBODY), ["hello"]


def ranks(model: str) -> Iterator[Case]:
    """Yield the cases of documents ranked by relevance, and of scores."""
    wire = VllmRerankWire(model)
    yield "two documents", wire, [{"query": "a question", "documents": ["an answer", "something else"]}]
    yield "no documents", wire, [{"query": "a question", "documents": []}]
    yield "an empty document", wire, [{"query": "a question", "documents": ["an answer", ""]}]
    yield "one of two documents too long", wire, [{"query": "a question", "documents": ["an answer", TOO_LONG]}]
    yield "an unknown model", replace(wire, model=NOBODY), [{"query": "a question", "documents": ["an answer"]}]


def scores(model: str) -> Iterator[Case]:
    """Yield the cases of scores of pairs."""
    wire = VllmScoreWire(model)
    yield "two pairs", wire, [["a", "b"], ["a", "c"]]
    yield "one of two pairs too long", wire, [["a", "b"], ["a", TOO_LONG]]
    yield "an empty text", wire, [["a", ""]]


def transcriptions(model: str, speech: Path, long: Path, folder: Path) -> Iterator[Case]:
    """Yield the cases of recordings: speech of ten seconds, a longer one, and what is none."""
    wire = OpenAITranscriptionsWire(model)
    none, words, silence = folder / "empty.wav", folder / "words.wav", folder / "silence.wav"
    none.write_bytes(b"")
    words.write_bytes(b"these are words, and not a recording\n" * 40)
    with wave.open(str(silence), "wb") as made:
        made.setparams((1, 2, 16000, 0, "NONE", ""))
        made.writeframes(bytes(32000))
    yield "an answer", wire, [sound(speech)]
    yield "with times", replace(wire, parameters={"response_format": "verbose_json"}), [sound(speech)]
    yield "44 seconds", wire, [sound(long)]
    yield "a second of silence", wire, [sound(silence)]
    yield "an empty file", wire, [sound(none)]
    yield "words for a recording", wire, [sound(words)]
    yield "a language that is none", wire, [{"file": sound(speech), "language": "nonsense"}]
    yield "a text for a number", wire, [{"file": sound(speech), "temperature": "warm"}]
    yield "a field that is none", wire, [{"file": sound(silence), "no_such_field": "1"}]
    yield "an unknown model", replace(wire, model=NOBODY), [sound(silence)]


def sound(path: Path) -> dict[str, str]:
    """Return the request for a recording."""
    return File(str(path), hashlib.sha256(path.read_bytes()).hexdigest(), "audio/wav").as_json()
