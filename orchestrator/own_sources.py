"""The user's own files that the user's code imports, found without running anything."""

from __future__ import annotations

import ast
import hashlib
import sys
from contextlib import suppress
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

_INSTALLED = frozenset({"site-packages", "dist-packages"})
_PARSING = RLock()
_TRIES = 100
T = TypeVar("T")


def undisturbed(parse: Callable[[], T]) -> T:
    """Return what a function that uses `ast` returns.

    In CPython 3.11, threads that parse at once can fail with SystemError. Ours do so one after the other; another
    library's, or the job's own, may come between, so it is tried again.
    """
    with _PARSING:
        for _ in range(_TRIES):
            with suppress(SystemError):
                return parse()
        return parse()


def imported(files: Iterable[Path], folders: Sequence[Path]) -> set[Path]:
    """Return all files in these folders that the files import, directly or indirectly, without the files themselves.

    `folders`: the interpreter's import path without its own packages. Names of the standard library are never found
    there.
    """
    given = {path.absolute() for path in files}
    seen, waiting = set(given), list(given)
    while waiting:
        path = waiting.pop()
        for found in _imports(path, folders):
            if found not in seen:
                seen.add(found)
                waiting.append(found)
    return seen - given


def digest_of(files: Collection[Path], folders: Sequence[Path], *, itself: bool = False) -> str:
    """Return the SHA-256 of all files that these import, and with `itself` of these; "" if there are none."""
    paths = imported(files, folders) | (set(files) if itself else set())
    found = {_name(path, folders): path for path in paths}
    if not found:
        return ""
    digest = hashlib.sha256()
    for name, path in sorted(found.items()):
        digest.update(f"{name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def is_installed(path: Path) -> bool:
    """Whether the file came with a package rather than from the user."""
    return not _INSTALLED.isdisjoint(path.parts) or path.is_relative_to(Path(ast.__file__).parent)


def _imports(path: Path, folders: Sequence[Path]) -> Iterator[Path]:
    try:
        content = path.read_bytes()
        tree = undisturbed(lambda: ast.parse(content))
    except (SyntaxError, ValueError, OSError):  # running the file reports the error better
        return
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield from _named(alias.name.split("."), folders)
            case ast.ImportFrom(module=module, names=names, level=level):
                parts = module.split(".") if module else []
                places = [_up(path, level)] if level else folders
                for alias in names:  # each may also be a module
                    yield from _named([*parts, alias.name], places, relative=level > 0)
            case ast.Call(func=ast.Name(id="__import__") | ast.Attribute(attr="import_module")) if node.args:
                match node.args[0]:
                    case ast.Constant(value=str(name)) if not name.startswith("."):
                        yield from _named(name.split("."), folders)


def _up(path: Path, level: int) -> Path:
    """Return the folder in which a relative import looks."""
    return path.parents[level - 1] if level <= len(path.parents) else path.parent


def _named(parts: Sequence[str], folders: Sequence[Path], *, relative: bool = False) -> Iterator[Path]:
    """Yield the files of a module and of its parent packages that are in the first folder that has any."""
    if not relative and parts[0] in sys.stdlib_module_names:
        return
    for folder in folders:
        place, found = folder.absolute(), False
        for part in parts:
            place /= part
            file = place.with_name(f"{part}.py") if part.isidentifier() else place
            for one in (place / "__init__.py", file):
                if one.is_file():
                    yield one
                    found = True
                    break
        if found:
            return


def _name(path: Path, folders: Sequence[Path]) -> str:
    """Return a name for the file that does not depend on where the folders are."""
    for number, folder in enumerate(folders):
        if path.is_relative_to(folder.absolute()):
            return f"{number}/{path.relative_to(folder.absolute()).as_posix()}"
    return path.name
