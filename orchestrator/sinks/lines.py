"""Records as JSON lines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import orjson

from orchestrator import exact_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def json_lines(records: Iterable[Mapping[str, object]]) -> bytes:
    """Return one line of UTF-8 JSON for each record."""
    return b"".join(map(_line, records))


def _line(record: Mapping[str, object]) -> bytes:
    try:
        return exact_json.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # nested deeper than orjson writes once the record is around it: old ledgers may hold such values
        return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
