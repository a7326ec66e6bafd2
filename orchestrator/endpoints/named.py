"""Endpoints from plain data: by name from the settings file, and from what the ledger keeps of them."""

from __future__ import annotations

import collections.abc
import dataclasses
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from orchestrator import exact_json
from orchestrator.config import load_settings
from orchestrator.domain.errors import UsageError
from orchestrator.endpoints.command import CommandEndpoint
from orchestrator.endpoints.engines import LlamaCpp, Sglang, Tei, TransformersServe, Vllm
from orchestrator.endpoints.http import HttpEndpoint
from orchestrator.endpoints.huggingface import HuggingFaceEndpoint
from orchestrator.endpoints.local import LocalEndpoint
from orchestrator.endpoints.local_server import LocalServer
from orchestrator.endpoints.serverless import ServerlessEndpoint
from orchestrator.wires.kinds import WIRES
from orchestrator.wires.wire import Wire

if TYPE_CHECKING:
    from typing import Protocol

    from _typeshed import DataclassInstance

    from orchestrator.ports import Endpoint

    class _Kind(Endpoint, DataclassInstance, Protocol):
        """An endpoint that is a dataclass."""


T = TypeVar("T")
D = TypeVar("D", bound="DataclassInstance")
KINDS: Mapping[str, type[_Kind]] = {
    "huggingface": HuggingFaceEndpoint,
    "http": HttpEndpoint,
    "command": CommandEndpoint,
    "serverless": ServerlessEndpoint,
    "local": LocalEndpoint,
    "local_server": LocalServer,
    "vllm": Vllm,
    "sglang": Sglang,
    "tei": Tei,
    "llama_cpp": LlamaCpp,
    "transformers_serve": TransformersServe,
}
# what annotations name that their modules import for type checkers only
_NAMES = {
    "BaseModel": BaseModel,
    "Mapping": collections.abc.Mapping,
    "Sequence": collections.abc.Sequence,
    "Wire": Wire,
}


def endpoint_from(fields: Mapping[str, object], where: str = "endpoint") -> Endpoint:
    """The endpoint that its `kind` and its settings describe. `UsageError` says where, and names the setting."""
    kind = _chosen(KINDS, fields.get("kind"), f"{where}: kind")
    return _made(kind, {key: value for key, value in fields.items() if key != "kind"}, where)


def named(name: str) -> Endpoint:
    """The endpoint that the settings file calls `[endpoints.NAME]`; if its kind has a `name`, that is NAME by default.

    Reads the settings file. `UsageError` where it knows no such endpoint, or does not describe it rightly.
    """
    endpoints = load_settings(None, None).endpoints
    if name not in endpoints:
        known = f"there is {', '.join(endpoints)}" if endpoints else "it has none"
        raise UsageError(f"the settings file has no [endpoints.{name}]; {known}")
    fields = dict(endpoints[name])
    kind = KINDS.get(str(fields.get("kind")))
    if kind is not None and any(spec.name == "name" for spec in dataclasses.fields(kind)):
        fields.setdefault("name", name)
    return endpoint_from(fields, f"[endpoints.{name}] of the settings file")


def _made(kind: type[D], settings: Mapping[str, object], where: str) -> D:
    """The dataclass with these settings, each checked against its annotation: strictly, as JSON."""
    specs = {spec.name: spec for spec in dataclasses.fields(kind) if spec.init}
    for key in settings:
        if key not in specs:
            raise UsageError(f"{where}: there is no setting {key!r}; there is {', '.join(specs)}")
    for name, spec in specs.items():
        required = spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING
        if required and name not in settings:
            raise UsageError(f"{where}: {name} is missing")
    hints = typing.get_type_hints(kind, localns=_NAMES)
    values = {key: _value(hints[key], value, f"{where}: {key}") for key, value in settings.items()}
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{where}: {error}") from error


def _value(hint: Any, value: object, where: str) -> object:  # noqa: ANN401 - an annotation, which has no type
    for kind in (hint, *typing.get_args(hint)):
        if kind is Wire:
            return _wire(value, where)
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            return _made(kind, _table(value, where), where)
    try:
        return TypeAdapter(hint, config=ConfigDict(strict=True)).validate_json(exact_json.dumps(value))
    except ValidationError as error:
        first = error.errors()[0]
        at = "".join(f"[{part!r}]" for part in first["loc"] if part in _keys(value))
        raise UsageError(f"{where}{at}: {first['msg']}, not {first['input']!r}") from error
    except orjson.JSONEncodeError as error:
        raise UsageError(f"{where}: {value!r} cannot stand in a settings file ({error})") from error


def _wire(value: object, where: str) -> object:
    """A wire, which may say its kind."""
    fields = _table(value, where)
    return _made(_chosen(WIRES, fields.pop("kind", "huggingface"), f"{where}.kind"), fields, where)


def _table(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{where} must be a table of settings, not {value!r}")
    return dict(value)


def _keys(value: object) -> tuple[object, ...]:
    if isinstance(value, Mapping):
        return tuple(value)
    return tuple(range(len(value))) if isinstance(value, list) else ()


def _chosen(kinds: Mapping[str, T], name: object, where: str) -> T:
    if not isinstance(name, str) or name not in kinds:
        raise UsageError(f"{where} must be one of {', '.join(kinds)}, not {name!r}")
    return kinds[name]
