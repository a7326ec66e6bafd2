"""Patterns of paths: which files match one now, and which paths would."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from fnmatch import fnmatchcase
from glob import escape, iglob
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MAGIC = re.compile(r"[*?[]")

Place = tuple[int, int]  # device and inode


def is_pattern(path: Path) -> bool:
    """Whether the path has `*`, `?` or `[` in it, and there is no file of that name."""
    return _MAGIC.search(str(path)) is not None and not path.exists()


def matches(pattern: Path) -> list[Path]:
    """Return the files that match now, sorted by path; `**` matches folders at any depth."""
    found = (Path(match) for match in sorted(iglob(str(pattern), recursive=True)))  # noqa: PTH207 - absolute
    return [path for path in found if not path.is_dir()]


def read_by(source: Path, paths: Sequence[Path]) -> list[Path]:
    """Return those of the paths that a source of this path or pattern reads, or would if they were there."""
    return covered(source, paths) if is_pattern(source) else same_files(source, paths)


def same_files(file: Path, paths: Iterable[Path]) -> list[Path]:
    """Return those of the paths that lead to this file, by whatever name or link, or would if it were there."""
    resolved = _resolved(file)
    place = _place(resolved)
    return [path for path in paths if (real := _resolved(path)) == resolved or (place and _place(real) == place)]


def covered(pattern: Path, paths: Sequence[Path]) -> list[Path]:
    """Return those of the paths that match the pattern, by whatever name or link, or would if they were there."""
    wanted = _with_real_folder(pattern)
    found = {path for path in paths if _fits((*_resolved(path.parent).parts, path.name), wanted)}
    # links: a match may be one of the files by another name, and a folder that matches may be theirs
    there = {path: place for path in paths if (place := _place(_resolved(path)))}
    if there:
        matching = _places(pattern)
        found |= {path for path, place in there.items() if place in matching}
    named = [path for path in paths if _fits((path.name,), wanted[-1:])]
    parents = {path: place for path in named if (place := _place(_resolved(path.parent)))}
    if parents:
        folders = _places(pattern if wanted[-1] == "**" else pattern.parent)
        found |= {path for path, place in parents.items() if place in folders}
    return [path for path in paths if path in found]


def _with_real_folder(pattern: Path) -> tuple[str, ...]:
    """The parts of the pattern, those before the first wildcard without links."""
    fixed = Path(*takewhile(lambda part: not _MAGIC.search(part), pattern.parts))
    return (*map(escape, _resolved(fixed).parts), *pattern.parts[len(fixed.parts) :])


def _fits(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Whether a path matches, part by part, as `glob` has it: no wildcard matches a hidden file or folder."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        deeper = bool(parts) and not parts[0].startswith(".") and _fits(parts[1:], pattern)
        return deeper or _fits(parts, pattern[1:])
    if not parts or (parts[0].startswith(".") and not pattern[0].startswith(".")):
        return False
    return fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _resolved(path: Path) -> Path:
    """The path without links, also through `..` of a folder that is not there yet."""
    return Path(os.path.realpath(path))


def _places(pattern: Path) -> set[Place | None]:
    return set(map(_place, iglob(str(pattern), recursive=True)))  # noqa: PTH207 - absolute


def _place(path: str | Path) -> Place | None:
    with suppress(OSError):
        status = os.stat(path)  # noqa: PTH116 - of a hundred thousand matches no `Path` is made
        return status.st_dev, status.st_ino
    return None
