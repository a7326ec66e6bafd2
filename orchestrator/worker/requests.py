"""The model's input and parameters, from a stored request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson

from orchestrator import exact_json
from orchestrator.worker.model import Parameters, Rejected

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENVELOPE = frozenset({"inputs", "parameters"})
_OURS = frozenset({"batch_size", "num_workers"})  # an argument of a pipeline's call; here the worker decides the width
_LABELLED = {  # tasks whose labels are parameters of the call, and the keys that may hold the input beside them
    "zero-shot-classification": ("sequences", "inputs", "text"),
    "zero-shot-image-classification": ("image", "images", "inputs"),
    "zero-shot-audio-classification": ("audio", "audios", "inputs"),
}


@dataclass(slots=True)
class Group:
    """Inputs that share their parameters, with their places in the request."""

    parameters: Parameters
    places: list[int] = field(default_factory=list)
    values: list[object] = field(default_factory=list)

    def one_by_one(self) -> Iterator[Group]:
        """Return each input as a group of its own."""
        for place, value in zip(self.places, self.values, strict=True):
            yield Group(self.parameters, [place], [value])


def unfold(request: object, shared: Parameters, task: str) -> tuple[object, Parameters]:
    """Split a request: a bare input, or `{"inputs": ..., "parameters": {...}}` which override the shared."""
    value, parameters = request, shared
    if isinstance(value, dict) and "inputs" in value and value.keys() <= _ENVELOPE:
        own = value.get("parameters") or {}
        if not isinstance(own, dict):
            raise Rejected(f"parameters must be an object, not {type(own).__name__}")
        value, parameters = value["inputs"], {**parameters, **own}
    if isinstance(value, dict) and "$file" not in value and task in _LABELLED:
        key = next((key for key in _LABELLED[task] if key in value), None)
        if key is None:
            raise Rejected(f"{task} takes an object with one of {', '.join(_LABELLED[task])}")
        parameters = {**parameters, **{name: part for name, part in value.items() if name != key}}
        value = value[key]
    parameters = {name: setting for name, setting in parameters.items() if name not in _OURS}
    return value, _with_labels(parameters, task) if task in _LABELLED else parameters


def _with_labels(parameters: Parameters, task: str) -> Parameters:
    """Hugging Face's toolkit also takes `candidateLabels`."""
    labels = parameters.get("candidate_labels", parameters.get("candidateLabels"))
    if not labels:
        raise Rejected(f"{task} needs the parameter candidate_labels")
    others = {name: part for name, part in parameters.items() if name != "candidateLabels"}
    return {**others, "candidate_labels": labels}


class Groups:
    """Groups inputs that may share one call of the model."""

    def __init__(self) -> None:
        self._groups: dict[bytes, Group] = {}

    def __iter__(self) -> Iterator[Group]:
        """Each group."""
        return iter(self._groups.values())

    def add(self, place: int, value: object, parameters: Parameters) -> None:
        """Add this request to those with the same parameters. Raises `TypeError` if these have no JSON form."""
        key = exact_json.dumps(parameters, option=orjson.OPT_SORT_KEYS)
        found = self._groups.setdefault(key, Group(parameters))
        found.places.append(place)
        found.values.append(value)
