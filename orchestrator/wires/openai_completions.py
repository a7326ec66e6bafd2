"""The OpenAI completions wire: `{"model": ..., "prompt": [...]}`, text that continues a prompt.

Source of the shapes: the types of the `openai` package; vLLM, SGLang, TGI (4 prompts per request), llama.cpp serve it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.wires.answers import bad, by_index, decoded, shown, usage_of, with_usage
from orchestrator.wires.batches import gathered, no_streams, one_answer, texts_or_tokens
from orchestrator.wires.endings import text_of
from orchestrator.wires.routes import joined
from orchestrator.wires.streams import COMPLETIONS
from orchestrator.wires.wire import Body

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from yarl import URL


@dataclass(frozen=True, slots=True)
class OpenAICompletionsWire:
    """A stored request is the prompt, or an object with `prompt` and parameters. The answer is the text."""

    model: str
    parameters: Mapping[str, object] = field(default_factory=dict)
    takes_lists = True
    stream = COMPLETIONS

    def __post_init__(self) -> None:
        no_streams(self.parameters)

    @property
    def identity(self) -> Mapping[str, object]:
        """Model and parameters."""
        return {"wire": "openai-completions", "wire_model": self.model, "parameters": dict(self.parameters)}

    def url(self, base: URL) -> URL:
        """Return the URL of the route on a server with this base URL."""
        return joined(base, "v1/completions")

    async def pack(self, requests: Sequence[bytes]) -> Body:
        """Return the body for these requests. A single prompt is not sent as a list: some servers refuse that."""
        fields = one_answer({"model": self.model, **gathered(requests, "prompt", self.parameters)})
        prompts = texts_or_tokens(fields["prompt"])
        if any(_is_several(prompt) for prompt in prompts):
            raise RequestFailed(FailureKind.REJECTED, "not sent: an item has one answer, so a request is one prompt")
        if len(prompts) == 1:
            (fields["prompt"],) = prompts
        return Body.of(fields)

    def unpack(self, content: bytes, count: int) -> list[object]:
        """Return the texts by their index."""
        answer = decoded(content, in_part=True)
        choices = answer.get("choices") if isinstance(answer, dict) else None
        return with_usage(by_index(choices, count, _text), *usage_of(answer))


def _is_several(prompt: object) -> bool:
    """Whether it is one prompt; a list of numbers is a prompt in tokens."""
    return isinstance(prompt, list) and not all(isinstance(token, int) for token in prompt)


def _text(choice: object) -> object:
    if not isinstance(choice, dict):
        raise bad(f"no text in the choice: {shown(choice)}")
    return text_of(choice.get("text"), choice.get("finish_reason"), of=choice, limit="max_tokens")
