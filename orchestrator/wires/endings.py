"""How a generated text ended, by the word that the server has for it: whole, cut, or not at all.

Words of OpenAI, vLLM, SGLang, llama.cpp and TGI, and of what speaks their format in front of other models (Anthropic,
Cohere, Gemini, GLM, Mistral), in any case. A server that has no word for it means that the text is whole.
"""

from __future__ import annotations

from orchestrator.domain.answer import Answer, Note
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.wires.answers import bad, exact, garbled, refused, shown

_WHOLE = frozenset(
    [
        "stop",
        "eos",
        "eos_token",
        "stop_sequence",
        "stop_token",
        "end_turn",
        "end",
        "complete",
        "completed",
        "finished",
        "success",
        "tool_calls",
        "tool_call",
        "tool_use",
        "function_call",
    ]
)
_CUT = frozenset(
    [
        "length",
        "max_tokens",
        "max_output_tokens",
        "max_completion_tokens",
        "max_length",
        "model_length",
        "model_context_window_exceeded",
    ]
)
_FILTERED = frozenset(
    [
        "content_filter",
        "content_filtered",
        "safety",
        "recitation",
        "blocklist",
        "prohibited_content",
        "spii",
        "sensitive",
        "refusal",
    ]
)


def is_cut(how: object) -> bool:
    """Whether a text that ended like this was cut at its limit of tokens. `RequestFailed` where it has not ended."""
    if how is None or how == "":
        return False
    word = how.lower() if isinstance(how, str) else ""
    if word in _FILTERED:
        raise refused("its answer was filtered")
    if word not in _WHOLE | _CUT:
        raise garbled(f"the answer has no end, it was given up: {shown(how)}")
    return word in _CUT


def text_of(text: object, how: object, *, of: object, limit: str) -> str | Answer:
    """A text that ended like this; an `Answer` where it was cut. `RequestFailed` where it is no answer.

    `of`: what it stands in, for the failure's words. `limit`: the parameter that says where it is cut.
    """
    no_error(of)
    cut = is_cut(how)
    if cut and (text is None or (isinstance(text, str) and not text.strip())):
        raise cut_short("before it said anything", limit)
    if not isinstance(text, str):
        raise bad(f"no text in the answer: {shown(of)}")
    return Answer(text, notes=frozenset({Note.CUT})) if cut else text


def with_calls(text: object, calls: list[object], how: object, *, limit: str) -> dict[str, object]:
    """An answer that calls tools: what is said beside that (None for nothing), and the calls as the server has them.

    `RequestFailed` where it is cut or has not ended: calls of which one is half do more harm than none.
    """
    if is_cut(how):
        raise cut_short("where it calls tools", limit)
    return {"content": text or None, "tool_calls": exact(calls)}


def joined_text(content: object) -> object:
    """A message's text, also where that is a list of parts: the texts among them, joined. Thoughts are no text.

    Anything else is given back as it is. `RequestFailed` where a part is a refusal.
    """
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        match part:
            case {"type": "refusal", "refusal": str(reason)}:
                raise refused(reason)
            case {"type": "text" | "output_text", "text": str(text)}:
                texts.append(text)
    return "".join(texts) if texts else None


def no_error(of: object) -> None:
    """`RequestFailed` where a part of an answer brings an error along: what else stands there has no end."""
    if isinstance(of, dict) and of.get("error"):
        raise garbled(f"an error in the answer: {shown(of['error'])}")


def cut_short(where: str, limit: str) -> RequestFailed:
    """The failure that an answer is which its limit of tokens leaves without use: the same request would end there."""
    reason = f"truncated: the answer ends at its limit of tokens, {where}; raise {limit} (reasoning counts, too)"
    return RequestFailed(FailureKind.REJECTED, reason, status=200)
