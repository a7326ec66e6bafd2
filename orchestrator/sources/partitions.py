"""Columns in the names of folders, as Spark, DuckDB and polars partition files: year=2024/part-0.parquet."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

from orchestrator.domain.location import Location

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.domain.location import Target

_NULL = "__HIVE_DEFAULT_PARTITION__"


def partitions_of(paths: Iterable[Target]) -> dict[Target, dict[str, object]]:
    """Return the partition columns of each file that has any.

    A column's values are integers if all of them are, without leading zeros; otherwise they are text.
    """
    found = {path: texts for path in paths if (texts := _texts(path))}
    worded = {
        name for texts in found.values() for name, text in texts.items() if text is not None and not _is_whole(text)
    }
    return {
        path: {name: text if text is None or name in worded else int(text) for name, text in texts.items()}
        for path, texts in found.items()
    }


def _texts(path: Target) -> dict[str, str | None]:
    folders = path.folders if isinstance(path, Location) else path.parent.parts
    pairs = (part.partition("=") for part in folders)
    return {unquote(name): None if text == _NULL else unquote(text) for name, equals, text in pairs if name and equals}


def _is_whole(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdecimal() and len(digits) < 19 and str(int(text)) == text
