"""What a function of the user's refers to: functions, classes and constants of its file, and files beside that."""

from __future__ import annotations

import functools
import inspect
import json
import sys
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING

from orchestrator.own_sources import digest_of, is_installed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_ELSEWHERE = object()  # no name of its module: an attribute, a builtin, or what it imports by itself


def own_code(function: object) -> list[str]:
    """Texts that change when something changes that the function refers to; none where it refers to nothing of its own.

    Only what the user has written counts: nothing of an installed package, or that was not defined in a file.
    """
    bound = _bound(function)
    first = _definition(function)
    file = None if first is None else _file_of(first)
    if first is None or file is None:
        return bound
    texts, files = dict[str, str](), set[Path]()
    seen, waiting = {id(first)}, [first]
    if first is not function and isinstance(first, type):
        texts[""] = _source(first)  # of an object that can be called: its own text says nothing
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


def _beside(file: Path, name: str) -> Path | None:
    """A module that the function imports by itself, if it is one."""
    place = file.parent.joinpath(*name.split("."))
    found = [one for one in (place / "__init__.py", place.with_name(f"{place.name}.py")) if one.is_file()]
    return found[0] if found else None


def _definition(function: object) -> FunctionType | type | None:
    """Where its code is."""
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, MethodType):
        function = function.__func__
    found = inspect.unwrap(function) if callable(function) else function
    if isinstance(found, FunctionType | type):
        return found
    return None if type(found).__module__ == "builtins" else type(found)


def _bound(function: object) -> list[str]:
    """The arguments that a partial brings along."""
    found = list[str]()
    while isinstance(function, functools.partial):
        found += filter(None, (_constant(function.args), _constant(function.keywords)))
        function = function.func
    return found


def _referred(value: FunctionType | type) -> Iterator[tuple[str, object]]:
    """What its names stand for, as far as they can be looked up without running anything."""
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
    """The user's own file that it was defined in."""
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
        return inspect.getsource(value)
    except (OSError, TypeError):
        return repr(value.__name__)


def _constant(value: object) -> str:
    """What JSON can write; anything else may look different each time."""
    if isinstance(value, str | int | float | list | tuple | dict):
        try:
            return json.dumps(value, sort_keys=True)
        except (TypeError, ValueError):
            return ""
    pattern = getattr(value, "pattern", None)
    return pattern if isinstance(pattern, str) else ""
