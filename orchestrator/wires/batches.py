"""The fields of one body, made from several stored requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator import exact_json
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.wires.answers import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


# parameters that make several answers to one request, by server: all are paid for, and an item has one answer
_SEVERAL = (
    "n",
    "best_of",  # vLLM, TGI: the others are thrown away by the server
    "num_return_sequences",  # transformers
    "candidate_count",  # Gemini
    "num_generations",  # Cohere
    "n_cmpl",  # llama.cpp
)


def gathered(requests: Sequence[bytes], key: str, parameters: Mapping[str, object]) -> dict[str, object]:
    """Return `{<parameters>, key: [one input per request]}`.

    A request is the bare input, or an object with the input under `key` and parameters of its own, which take
    precedence. Raises `RequestFailed` (rejected) if the parameters of two requests differ, because a body has one set.
    """
    inputs: list[object] = []
    own: dict[str, object] = {}
    for request in requests:
        said = exact_json.loads(request)
        fields = said if isinstance(said, dict) and key in said else {key: said}
        inputs.append(fields.pop(key))
        if len(inputs) > 1 and fields != own:
            raise RequestFailed(FailureKind.REJECTED, "inputs with different parameters cannot share a request")
        own = fields
    return {**parameters, **own, key: inputs}


def texts_or_tokens(inputs: object) -> list[object]:
    """Return the inputs of one body, each a text or whatever else a server reads as one input.

    Raises `RequestFailed` (rejected) if one is a number, a boolean or null: in a list, servers read numbers as the
    tokens of a single input, so that they would answer fewer inputs than they were asked.
    """
    if not isinstance(inputs, list):
        raise RequestFailed(FailureKind.REJECTED, f"not sent: not a list of inputs: {shown(inputs)}")
    for one in inputs:
        if one is None or isinstance(one, int | float):
            raise RequestFailed(
                FailureKind.REJECTED, f"not sent: an input is a text, or a list of tokens, not {shown(one)}"
            )
    return inputs


def no_streams(parameters: Mapping[str, object]) -> None:
    """Raise `ValueError` for parameters that would produce several answers, or answers in a shape we do not read."""
    if (reason := _why_unreadable(parameters)) is not None:
        raise ValueError(reason)


def one_answer(fields: dict[str, object]) -> dict[str, object]:
    """Return the fields of a body. Raises `RequestFailed` (rejected) if a request has forbidden parameters."""
    if (reason := _why_unreadable(fields)) is not None:
        raise RequestFailed(FailureKind.REJECTED, f"not sent: {reason}")
    return fields


def _why_unreadable(fields: Mapping[str, object]) -> str | None:
    if fields.get("stream"):
        return "answers are taken whole: leave `stream` out"
    for name in _SEVERAL:
        if fields.get(name) not in (None, 1):
            return f"an item has one answer: leave `{name}` out"
    return "nobody comes back for an answer: leave `background` out" if fields.get("background") else None
