"""Columns in the names of folders, as Spark, DuckDB and polars partition files: year=2024/part-0.parquet."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_NULL = "__HIVE_DEFAULT_PARTITION__"


def partitions_of(paths: Iterable[Path]) -> dict[Path, dict[str, object]]:
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


def _texts(path: Path) -> dict[str, str | None]:
    pairs = (part.partition("=") for part in path.parent.parts)
    return {unquote(name): None if text == _NULL else unquote(text) for name, equals, text in pairs if name and equals}


def _is_whole(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdecimal() and len(digits) < 19 and str(int(text)) == text
