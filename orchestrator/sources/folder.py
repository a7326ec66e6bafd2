"""Folders as other programs write them: which of the files in one hold rows."""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

from orchestrator.domain.errors import NoFiles, UsageError
from orchestrator.domain.file_names import unpacked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FileT = TypeVar("FileT")

# What the logs of table formats are called.
_TABLES = {
    "Delta Lake": re.compile(r"_delta_log(/|\Z)"),
    "Hudi": re.compile(r"\.hoodie(/|\Z)"),
    "Iceberg": re.compile(r"metadata/[^/]*\.metadata\.json\Z"),
}


def with_rows(folder: str, files: Mapping[str, FileT], suffixes: Sequence[Sequence[str]]) -> list[FileT]:
    """Return those of the files in a folder, given by their paths in it, that hold rows of a format.

    `suffixes`: those of the format; the second group counts only if no file has one of the first. Hidden files,
    `_SUCCESS`, `_temporary` and the like hold no rows. Raises `NoFiles` if there is no such file, and `UsageError` if
    the folder is a table whose files also have rows that were deleted.
    """
    if table := next((table for table, log in _TABLES.items() if any(map(log.match, files))), None):
        raise UsageError(
            f"{folder} is a {table} table, whose files also have rows that were deleted: export its current rows"
        )
    rows = {name: file for name, file in files.items() if not any(map(_is_no_data, name.split("/")))}
    for group in suffixes:
        if found := [file for name, file in rows.items() if has_suffix(name, group)]:
            return found
    known = ", ".join(f"*{suffix}" for suffix in chain(*suffixes))
    pattern = f"{folder.removesuffix('/')}/*"
    raise NoFiles(f"{folder} has no file named {known}: give a pattern for its files, as {pattern}")


def has_suffix(name: str, suffixes: Sequence[str]) -> bool:
    """Whether the file's name has one of these suffixes, perhaps with that of a compressed file after it."""
    return unpacked(name.lower()).endswith(tuple(suffixes))


def _is_no_data(part: str) -> bool:
    return part.startswith(".") or (part.startswith("_") and "=" not in part)  # a column may begin with `_`
