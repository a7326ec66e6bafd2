"""Several stored requests -> the fields of one body."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator import exact_json
from orchestrator.domain.errors import FailureKind, RequestFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def gathered(requests: Sequence[bytes], key: str, parameters: Mapping[str, object]) -> dict[str, object]:
    """`{<parameters>, key: [one input per request]}`.

    A request is the bare input, or an object with the input under `key` and parameters of its own, which win.
    `RequestFailed` (rejected) where those of two requests differ: a body has one set of parameters.
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


def no_streams(parameters: Mapping[str, object]) -> None:
    """`ValueError` for parameters that make answers of another shape than the one that is read."""
    if parameters.get("stream"):
        raise ValueError("answers are taken whole: leave `stream` out")
    if parameters.get("n", 1) != 1:
        raise ValueError("an item has one answer: leave `n` out")
