"""Path patterns: which files match now, and which paths would."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from glob import escape, iglob
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.domain.path_patterns import fits

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MAGIC = re.compile(r"[*?[]")

Place = tuple[int, int]  # device and inode


def is_pattern(path: Path) -> bool:
    """Whether the path contains `*`, `?` or `[`, and there is no file with that name."""
    return _MAGIC.search(str(path)) is not None and not path.exists()


def all_in(folder: Path) -> Path:
    """Return the pattern of all files in a folder, at any depth."""
    return Path(escape(str(folder))) / "**" / "*"


def matches(pattern: Path) -> list[Path]:
    """Return the files that match now, sorted by path; `**` matches folders at any depth."""
    found = (Path(match) for match in sorted(iglob(str(pattern), recursive=True)))  # noqa: PTH207 - absolute
    return [path for path in found if not path.is_dir()]


def read_by(source: Path, paths: Sequence[Path]) -> list[Path]:
    """Return those of the paths that a source with this path or pattern reads, or would read if they existed."""
    return covered(source, paths) if is_pattern(source) else same_files(source, paths)


def same_files(file: Path, paths: Iterable[Path]) -> list[Path]:
    """Return those of the paths that lead to this file, by any name or link, or would if it existed."""
    resolved = _resolved(file)
    place = _place(resolved)
    return [path for path in paths if (real := _resolved(path)) == resolved or (place and _place(real) == place)]


def covered(pattern: Path, paths: Sequence[Path]) -> list[Path]:
    """Return those of the paths that match the pattern, by any name or link, or would if they existed."""
    wanted = _with_real_folder(pattern)
    found = {path for path in paths if fits((*_resolved(path.parent).parts, path.name), wanted)}
    # links: a match may be one of the files under another name, or a folder that holds them
    there = {path: place for path in paths if (place := _place(_resolved(path)))}
    if there:
        matching = _places(pattern)
        found |= {path for path, place in there.items() if place in matching}
    named = [path for path in paths if fits((path.name,), wanted[-1:])]
    parents = {path: place for path in named if (place := _place(_resolved(path.parent)))}
    if parents:
        folders = _places(pattern if wanted[-1] == "**" else pattern.parent)
        found |= {path for path, place in parents.items() if place in folders}
    return [path for path in paths if path in found]


def _with_real_folder(pattern: Path) -> tuple[str, ...]:
    """Return the parts of the pattern, with links resolved in those before the first wildcard."""
    fixed = Path(*takewhile(lambda part: not _MAGIC.search(part), pattern.parts))
    return (*map(escape, _resolved(fixed).parts), *pattern.parts[len(fixed.parts) :])


def _resolved(path: Path) -> Path:
    """Return the path with links resolved, even through `..` of a folder that does not exist yet."""
    return Path(os.path.realpath(path))


def _places(pattern: Path) -> set[Place | None]:
    return set(map(_place, iglob(str(pattern), recursive=True)))  # noqa: PTH207 - absolute


def _place(path: str | Path) -> Place | None:
    with suppress(OSError):
        status = os.stat(path)  # noqa: PTH116 - of a hundred thousand matches no `Path` is made
        return status.st_dev, status.st_ino
    return None
