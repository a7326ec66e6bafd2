"""How a generated text ended, by the server's own word: complete, cut, or not at all.

The words are those of OpenAI, vLLM, SGLang, llama.cpp and TGI, and of servers that speak their format in front of other
models (Anthropic, Cohere, Gemini, GLM, Mistral), in upper or lower case. No word means that the text is complete.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Protocol, TypeVar

from orchestrator import exact_json
from orchestrator.domain.answer import Answer, Note
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.wires.answers import bad, exact, garbled, refused, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class _HasParameters(Protocol):
    @property
    def parameters(self) -> Mapping[str, object]: ...


_W = TypeVar("_W", bound=_HasParameters)

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
    """Whether a text that ended like this was cut at its token limit. Raises `RequestFailed` if it has not ended."""
    if how is None or how == "":
        return False
    word = how.lower() if isinstance(how, str) else ""
    if word in _FILTERED:
        raise refused("its answer was filtered")
    if word not in _WHOLE | _CUT:
        raise garbled(f"the answer has no end, it was given up: {shown(how)}")
    return word in _CUT


def text_of(text: object, how: object, *, of: object, limit: str) -> str | Answer:
    """Return a text that ended like this, as an `Answer` if it was cut. Raises `RequestFailed` if it is not an answer.

    `of`: what contains the text, for the failure's message. `limit`: the parameter that sets the token limit.
    """
    no_error(of)
    cut = is_cut(how)
    if cut and (text is None or (isinstance(text, str) and not text.strip())):
        raise cut_short("before it said anything", limit)
    if not isinstance(text, str):
        raise bad(f"no text in the answer: {shown(of)}")
    return Answer(text, notes=frozenset({Note.CUT})) if cut else text


def with_calls(text: object, calls: list[object], how: object, *, limit: str) -> dict[str, object]:
    """Return an answer that calls tools: the accompanying text (None for nothing) and the server's calls unchanged.

    Raises `RequestFailed` if it was cut or has not ended: an incomplete call does more harm than none.
    """
    if is_cut(how):
        raise cut_short("where it calls tools", limit)
    return {"content": text or None, "tool_calls": exact(calls)}


def reading_by(wire: _W, requests: Sequence[bytes], *names: str) -> _W:
    """Return the wire with these parameters of a request, which take precedence; itself if it has none of them."""
    (request,) = requests
    if not any(b'"%s"' % name.encode() in request for name in names):  # most have none, and need not be read for that
        return wire
    fields = exact_json.loads(request)
    own = {name: fields[name] for name in names if name in fields} if isinstance(fields, dict) else {}
    copied = copy.copy(wire)
    object.__setattr__(copied, "parameters", {**wire.parameters, **own})
    return copied


def check_no_call_is_due(parameters: Mapping[str, object], how: object, *, limit: str) -> None:
    """Raise `RequestFailed` if these parameters demand a call of a tool, and an answer has none that ended so."""
    match parameters.get("tool_choice"):
        case "required" | "any" | {"mode": "required"} | {"allowed_tools": {"mode": "required"}}:
            pass
        case {"type": "function" | "custom"}:  # by its name
            pass
        case _:
            return
    if is_cut(how):
        raise cut_short("before it calls a tool", limit)
    raise bad("tool_choice demands a call, and the answer has none: the server or its chat template ignores tools")


def joined_text(content: object) -> object:
    """Return a message's text; if the content is a list of parts, its text parts joined. Thoughts are not text.

    Anything else is returned unchanged. Raises `RequestFailed` if a part is a refusal.
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
    """Raise `RequestFailed` if a part of an answer contains an error: the rest of it is incomplete."""
    if isinstance(of, dict) and of.get("error"):
        raise garbled(f"an error in the answer: {shown(of['error'])}")


def cut_short(where: str, limit: str) -> RequestFailed:
    """Return the failure for an answer made useless by its token limit: the same request would end there again."""
    reason = f"truncated: the answer ends at its token limit, {where}; raise {limit} (reasoning counts too)"
    return RequestFailed(FailureKind.REJECTED, reason, status=200)
