"""Records as JSON lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from orchestrator import exact_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def json_lines(records: Iterable[Mapping[str, object]]) -> bytes:
    """Return one line of UTF-8 JSON for each record."""
    return b"".join(exact_json.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records)
