"""The user's own files that his code imports: found by reading, nothing is run."""

from __future__ import annotations

import ast
import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

_INSTALLED = frozenset({"site-packages", "dist-packages"})


def imported(files: Iterable[Path], folders: Sequence[Path]) -> set[Path]:
    """Every file in these folders that the files import, and what that imports in turn; the files themselves not.

    `folders`: where the interpreter that runs them looks beside its own packages. A name of the standard library is
    never found there.
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
    """SHA-256 over the content of what these files import, and of themselves; "" where that is nothing."""
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
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):  # whoever runs it says so better
        return
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield from _named(alias.name.split("."), folders)
            case ast.ImportFrom(module=module, names=names, level=level):
                parts = module.split(".") if module else []
                places = [_up(path, level)] if level else folders
                for alias in names:  # each may be a module, too
                    yield from _named([*parts, alias.name], places, relative=level > 0)
            case ast.Call(func=ast.Name(id="__import__") | ast.Attribute(attr="import_module")) if node.args:
                match node.args[0]:
                    case ast.Constant(value=str(name)) if not name.startswith("."):
                        yield from _named(name.split("."), folders)


def _up(path: Path, level: int) -> Path:
    """Where a relative import looks."""
    return path.parents[level - 1] if level <= len(path.parents) else path.parent


def _named(parts: Sequence[str], folders: Sequence[Path], *, relative: bool = False) -> Iterator[Path]:
    """The files of a module and of the packages that it lies in, as far as they are in one of the folders."""
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
    """The same wherever the folders lie."""
    for number, folder in enumerate(folders):
        if path.is_relative_to(folder.absolute()):
            return f"{number}/{path.relative_to(folder.absolute()).as_posix()}"
    return path.name
