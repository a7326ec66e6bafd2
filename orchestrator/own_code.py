"""The code that a function of the user refers to: functions, classes and constants of its file, and files beside it."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import sys
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING

from orchestrator.own_sources import digest_of, is_installed, undisturbed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_ELSEWHERE = object()  # not a name of its module: an attribute, a builtin, or an import inside the function


def own_code(function: object) -> list[str]:
    """Return texts that change if code that the function refers to changes; none if it refers to no code of the user.

    Code of installed packages, and code that was not defined in a file, does not count.
    """
    bound = _bound(function)
    first = _definition(function)
    file = None if first is None else _file_of(first)
    if first is None or file is None:
        return bound
    texts, files = dict[str, str](), set[Path]()
    seen, waiting = {id(first)}, [first]
    if first is not function and isinstance(first, type):
        texts[""] = _source(first)  # a callable object has no source of its own, so its class counts
    while waiting:
        for name, value in _referred(waiting.pop()):
            place = _beside(file, name) if value is _ELSEWHERE else _file_of(value)
            if place == file and isinstance(value, FunctionType | type) and id(value) not in seen:
                seen.add(id(value))
                waiting.append(value)
                texts[name] = _source(value)
            elif place is not None and place != file:
                files.add(place)
            elif place is None and (constant := _constant(value)):
                texts[name] = constant
    beside = digest_of(files, [file.parent], itself=True)
    return [*bound, *(texts[name] for name in sorted(texts)), *([beside] if beside else [])]


def bound_state(function: object) -> list[str]:
    """Return the attributes of the object that is called, or whose method is, as far as they have a JSON form."""
    while isinstance(function, functools.partial):
        function = function.func
    owner = function.__self__ if isinstance(function, MethodType) else function
    if isinstance(owner, FunctionType | type):
        return []
    fields = dataclasses.fields(owner) if dataclasses.is_dataclass(owner) else ()
    attributes = {**getattr(owner, "__dict__", {}), **{one.name: getattr(owner, one.name) for one in fields}}
    return [f"{name}={constant}" for name, value in sorted(attributes.items()) if (constant := _constant(value))]


def _beside(file: Path, name: str) -> Path | None:
    """Return the file of a module that the function imports; None if the name is not a module beside its file."""
    place = file.parent.joinpath(*name.split("."))
    found = [one for one in (place / "__init__.py", place.with_name(f"{place.name}.py")) if one.is_file()]
    return found[0] if found else None


def _definition(function: object) -> FunctionType | type | None:
    """Return the function or class that holds the code of a callable."""
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, MethodType):
        function = function.__func__
    found = inspect.unwrap(function) if callable(function) else function
    if isinstance(found, FunctionType | type):
        return found
    return None if type(found).__module__ == "builtins" else type(found)


def _bound(function: object) -> list[str]:
    """Return the arguments that a partial binds."""
    found = list[str]()
    while isinstance(function, functools.partial):
        found += filter(None, (_constant(function.args), _constant(function.keywords)))
        function = function.func
    return found


def _referred(value: FunctionType | type) -> Iterator[tuple[str, object]]:
    """Yield the names that the code uses with their values, as far as known without running anything."""
    functions = [value] if isinstance(value, FunctionType) else _methods(value)
    for function in functions:
        inside = inspect.getclosurevars(function).nonlocals if function.__closure__ else {}
        yield from inside.items()
        for name in _names(function.__code__):
            yield name, function.__globals__.get(name, _ELSEWHERE)


def _methods(made: type) -> list[FunctionType]:
    found = (getattr(value, "__func__", value) for value in vars(made).values())
    return [value for value in found if isinstance(value, FunctionType)]


def _names(code: CodeType) -> Iterable[str]:
    nested = (_names(inner) for inner in code.co_consts if isinstance(inner, CodeType))
    return {*code.co_names, *(name for names in nested for name in names)}


def _file_of(value: object) -> Path | None:
    """Return the user's file in which a value was defined; None if it is installed or not from a file."""
    if isinstance(value, FunctionType):
        path: str | None = value.__code__.co_filename
    elif isinstance(value, ModuleType):
        path = getattr(value, "__file__", None)
    else:
        path = getattr(sys.modules.get(value.__module__), "__file__", None) if isinstance(value, type) else None
    if path is None or not path.endswith(".py"):
        return None
    file = Path(path).absolute()
    return file if file.is_file() and not is_installed(file) else None


def _source(value: FunctionType | type) -> str:
    try:
        return undisturbed(lambda: inspect.getsource(value))  # it parses for a class
    except (OSError, TypeError):
        return repr(value.__name__)


def _constant(value: object) -> str:
    """Return a constant as text; "" for values without a JSON form, whose text may differ each time."""
    if isinstance(value, str | int | float | list | tuple | dict):
        try:
            return json.dumps(value, sort_keys=True)
        except (TypeError, ValueError):
            return ""
    pattern = getattr(value, "pattern", None)
    return pattern if isinstance(pattern, str) else ""
