"""The OpenAI completions wire: `{"model": ..., "prompt": [...]}`, text that goes on from a prompt.

Source of the shapes: the types of the `openai` package; vLLM, SGLang, TGI (4 prompts a request), llama.cpp serve it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from orchestrator.wires.answers import bad, by_index, decoded, refused, shown, usage_of, with_usage
from orchestrator.wires.batches import gathered, no_streams
from orchestrator.wires.body import Body
from orchestrator.wires.routes import joined

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from yarl import URL


@dataclass(frozen=True, slots=True)
class OpenAICompletionsWire:
    """A stored request is the prompt, or an object with `prompt` and parameters. The answer is the text."""

    model: str
    parameters: Mapping[str, object] = field(default_factory=dict)
    takes_lists: ClassVar[bool] = True

    def __post_init__(self) -> None:
        no_streams(self.parameters)

    @property
    def identity(self) -> Mapping[str, object]:
        """Model and parameters."""
        return {"wire": "openai-completions", "wire_model": self.model, "parameters": dict(self.parameters)}

    def url(self, base: URL) -> URL:
        """Where it is asked, on a server with this base URL."""
        return joined(base, "v1/completions")

    async def pack(self, requests: Sequence[bytes]) -> Body:
        """The body that asks for these requests at once. One prompt is no list: some servers take none."""
        fields = {"model": self.model, **gathered(requests, "prompt", self.parameters)}
        prompts = fields["prompt"]
        if isinstance(prompts, list) and len(prompts) == 1:
            (fields["prompt"],) = prompts
        return Body.of(fields)

    def unpack(self, content: bytes, count: int) -> list[object]:
        """The texts, by their index."""
        answer = decoded(content)
        choices = answer.get("choices") if isinstance(answer, dict) else None
        return with_usage(by_index(choices, count, _text), *usage_of(answer))


def _text(choice: object) -> str:
    match choice:
        case {"finish_reason": "content_filter"}:
            raise refused("its answer was filtered")
        case {"text": str(text)}:
            return text
    raise bad(f"no text in the choice: {shown(choice)}")
