"""The kinds of sources, sinks, endpoints, wires and hooks by name, and the JSON form of their values.

A kind is a frozen dataclass. Its settings are the arguments of its constructor, each an attribute of the same name. Our
own kinds are in `KINDS` of their package (`orchestrator.sources`, ...). Installed packages can add kinds as entry
points, in a group with the name of that package, so that every process finds them.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

import orjson

from orchestrator import exact_json
from orchestrator.domain.errors import UsageError
from orchestrator.domain.location import Location
from orchestrator.domain.secrets import Secrets, holds_secret
from orchestrator.ports import Endpoint, Hook, Sink, Source

T = TypeVar("T")
Form = Mapping[str, object]  # a value as JSON
Find = Callable[[Form, str], object]  # finds the Python object that a reference names, given where the reference is
Refer = Callable[[object, Sequence[str], str], Form]  # makes a reference to a value, given its path in the job, and why
_VARIABLES = re.compile(r"_env$|^secrets$")  # settings whose values are names of environment variables


class Kinds:
    """The kinds of one port by name."""

    def __init__(self, noun: str, usual: str | None = None) -> None:
        self._noun = noun
        self._package = f"orchestrator.{noun}s"
        self._usual = usual

    @property
    def names(self) -> list[str]:
        """The names of all kinds; our own come first."""
        return list(dict.fromkeys([*self._ours, *(point.name for point in self._theirs)]))

    def read(self, form: Form, where: str, find: Find | None = None) -> Any:
        """Return the value of a form, which has a `kind` and settings.

        `find`: resolves references, which are then allowed in place of the form or of a setting.
        Raises `UsageError`, with the place and the setting, if the form is not valid.
        """
        if find is not None and is_reference(form):
            return find(form, where)
        settings = dict(form)
        return made(self.type_of(settings.pop("kind", self._usual), where), settings, where, find)

    def type_of(self, name: object, where: str) -> type[Any]:
        """Return the dataclass of a kind. Raises `UsageError` if there is none with that name."""
        if isinstance(name, str):
            if name in self._ours:
                return self._our_type(name)
            for point in self._theirs:
                if point.name == name:
                    return _loaded(point, where)
        if name is None:
            raise UsageError(f"{where}: kind is missing: one of {', '.join(self.names)}")
        raise UsageError(f"{where}: kind must be one of {', '.join(self.names)}, not {name!r}")

    def name_of(self, kind: type) -> str | None:
        """Return the name of a kind; None if it is not registered."""
        for name, word in self._ours.items():
            if word == kind.__name__ and self._our_type(name) is kind:
                return name
        theirs = (one.name for one in self._theirs if one.attr == kind.__qualname__ and one.module == kind.__module__)
        return next(theirs, None)

    @property
    def _ours(self) -> Mapping[str, str]:
        kinds: Mapping[str, str] = import_module(self._package).KINDS
        return kinds

    def _our_type(self, name: str) -> type[Any]:
        kind: type[Any] = getattr(import_module(self._package), self._ours[name])
        return kind

    @property
    def _theirs(self) -> Sequence[EntryPoint]:
        return tuple(entry_points(group=self._package))


SOURCES = Kinds("source")
SINKS = Kinds("sink")
ENDPOINTS = Kinds("endpoint")
WIRES = Kinds("wire", usual="huggingface")
HOOKS = Kinds("hook")


def _loaded(point: EntryPoint, where: str) -> type[Any]:
    try:
        kind = point.load()
    except Exception as error:
        raise UsageError(f"{where}: the kind {point.name!r} cannot be loaded from {point.value}: {error}") from error
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise UsageError(f"{where}: the kind {point.name!r}, {point.value}, is not a dataclass")
    return kind


@cache
def _ports() -> Mapping[object, Kinds]:
    wire = import_module("orchestrator.wires").Wire
    return {Source: SOURCES, Sink: SINKS, Endpoint: ENDPOINTS, Hook: HOOKS, wire: WIRES}


@cache
def _hints(kind: Any) -> Mapping[str, Any]:
    """Return the types of a kind's settings, including types that its module imports only for type checkers."""
    from pydantic import BaseModel  # it takes long to import, and few processes need it

    names = {port.__name__: port for port in _ports() if isinstance(port, type)}
    names |= {"BaseModel": BaseModel, "Mapping": collections.abc.Mapping, "Sequence": collections.abc.Sequence}
    try:
        return typing.get_type_hints(kind, localns=names)
    except NameError as error:
        raise UsageError(f"the annotations of {kind.__qualname__} are not known outside its module: {error}") from error


# -- JSON -> value -----------------------------------------------------------------------------------------------------


def made(kind: Callable[..., T], settings: Form, where: str, find: Find | None = None) -> T:
    """Return the dataclass with these settings, each checked strictly, as JSON, against its annotation."""
    parameters = inspect.signature(kind).parameters
    for key in settings:
        if key not in parameters:
            raise UsageError(f"{where}: there is no setting {key!r}; there is {', '.join(parameters)}")
    for name, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and name not in settings:
            raise UsageError(f"{where}: {name} is missing")
    hints = _hints(kind)
    values = {key: checked(hints[key], value, f"{where}: {key}", find) for key, value in settings.items()}
    try:
        return kind(**values)
    except (UsageError, TypeError, ValueError) as error:
        raise UsageError(f"{where}: {error}") from error


def checked(hint: Any, value: object, where: str, find: Find | None = None) -> Any:
    """Return the value of a part of a form. Raises `UsageError` if its annotation does not allow it."""
    if find is not None and is_reference(value):
        return find(typing.cast("Form", value), where)
    parts = (hint, *typing.get_args(hint))
    if value is None and type(None) in parts:
        return None
    for part in parts:
        if (kinds := _kinds_of(part)) is not None:
            return kinds.read(table(value, where), where, find)
        if isinstance(part, type) and dataclasses.is_dataclass(part):
            return made(part, table(value, where), where, find)
    if Location in parts and isinstance(value, str):  # the constructor tells a location from a path
        return value
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    try:
        return TypeAdapter(hint, config=ConfigDict(strict=True)).validate_json(exact_json.dumps(value))
    except ValidationError as error:
        first = error.errors()[0]
        at = "".join(f"[{part!r}]" for part in first["loc"] if part in _keys(value))
        raise UsageError(f"{where}{at}: {first['msg']}, not {first['input']!r}") from error
    except orjson.JSONEncodeError as error:
        raise UsageError(f"{where}: {value!r} is not a valid value in a settings file ({error})") from error


def table(value: object, where: str) -> dict[str, object]:
    """Return the settings in an object. Raises `UsageError` for any other value."""
    if not isinstance(value, Mapping):
        raise UsageError(f"{where} must be a table of settings, not {value!r}")
    return dict(value)


def is_reference(value: object) -> bool:
    """Whether this is `{"python": {"file": ..., "name": ...}}`, a reference to an object in a Python file."""
    if not isinstance(value, Mapping) or value.keys() != {"python"}:
        return False
    inside = value["python"]
    return isinstance(inside, Mapping) and inside.keys() == {"file", "name"}


def _kinds_of(hint: object) -> Kinds | None:
    return _ports().get(hint) if isinstance(hint, type) else None


def _keys(value: object) -> tuple[object, ...]:
    if isinstance(value, Mapping):
        return tuple(value)
    return tuple(range(len(value))) if isinstance(value, list) else ()


# -- value -> JSON -----------------------------------------------------------------------------------------------------


class _NoForm(Exception):
    """A value cannot be written as JSON; the message is the reason."""


_NO_JSON = "has no JSON form"
_SECRET = "may hold a secret"


@dataclasses.dataclass(frozen=True, slots=True)
class Writer:
    """Writes values as JSON. `refer` is called for values without a JSON form and for possible secrets.

    It returns a reference, or raises.
    """

    refer: Refer

    def kind(self, kinds: Kinds, value: object, path: Sequence[str]) -> Form:
        """Return the form of a source, a sink, an endpoint, a wire or a hook."""
        name = kinds.name_of(type(value))
        return self.refer(value, path, _NO_JSON) if name is None else {"kind": name, **self.settings(value, path)}

    def settings(self, value: object, path: Sequence[str]) -> Form:
        """Return the settings of a dataclass that differ from their defaults."""
        kind: Any = type(value)
        fields = {field.name: field for field in dataclasses.fields(kind)}
        parameters = inspect.signature(kind).parameters
        if parameters.keys() - fields.keys():  # it does not keep all arguments of its constructor
            return self.refer(value, path, _NO_JSON)
        form = {}
        for name, parameter in parameters.items():
            field, part = fields[name], getattr(value, name)
            factory = field.default_factory
            default = parameter.default if factory is dataclasses.MISSING else factory()
            if type(part) is type(default) and part == default:
                continue
            place = (*path, name)
            hidden = not field.repr or is_secret(name, part)
            form[name] = self.refer(part, place, _SECRET) if hidden else self.value(_hints(kind)[name], part, place)
        return form

    def value(self, hint: Any, value: object, path: Sequence[str]) -> object:
        """Return the form of a setting's value."""
        for part in (hint, *typing.get_args(hint)):
            if value is not None and (kinds := _kinds_of(part)) is not None:
                return self.kind(kinds, value, path)
            if part is type(value) and dataclasses.is_dataclass(part):
                return self.settings(value, path)
            if part is Path and isinstance(value, Path):
                value = str(value)
        try:
            return _plain(value)
        except _NoForm as reason:
            return self.refer(value, path, str(reason))


def is_secret(name: str, value: object) -> bool:
    """Whether the value of a setting of this name looks like a secret."""
    if _VARIABLES.search(name):
        return False
    if name == "headers" and isinstance(value, Mapping):
        return bool(Secrets.within(value).known)
    return holds_secret({name: value})


def _plain(value: object) -> object:
    """Return the value in a form that survives JSON unchanged. Raises `_NoForm` if there is none."""
    match value:
        case None | bool():
            return value
        case str():
            if not _is_unicode(value):
                raise _NoForm(_NO_JSON)
            return str.__str__(value)
        case int():
            return int(value)
        case float() if isfinite(value):
            return float(value)
        case Mapping() if all(isinstance(key, str) for key in value) and not is_reference(value):
            return {str(_plain(key)): _plain(part) for key, part in value.items()}
        case list() | tuple():
            return [_plain(part) for part in value]
    raise _NoForm(_NO_JSON)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
