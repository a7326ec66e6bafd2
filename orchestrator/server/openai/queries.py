"""The query of a list request: `limit`, `after`, `order`, `purpose`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.server.failures import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class PageQuery:
    """Which page of a list is asked for: at most `limit` objects behind the one named `after`."""

    limit: int
    after: str | None = None
    newest_first: bool = True


def page_query(query: Mapping[str, str], *, default: int, most: int) -> PageQuery:
    """Return the page that a query asks for. Raises `Refused` with OpenAI's codes if a value is not valid."""
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise Refused(
            400,
            f"Invalid value: '{order}'. Supported values are: 'asc' and 'desc'.",
            code="invalid_value",
            param="order",
        )
    return PageQuery(_limit(query.get("limit"), default, most), query.get("after") or None, order == "desc")


def _limit(text: str | None, default: int, most: int) -> int:
    if not text:
        return default
    try:
        limit = int(text) if text.isascii() else None
    except ValueError:
        limit = None
    if limit is None:
        why, code = f"Invalid type for 'limit': expected an integer, but got '{text}' instead.", "invalid_type"
    elif limit < 1:
        why, code = f"Invalid 'limit': expected a value >= 1, but got {limit} instead.", "integer_below_min_value"
    elif limit > most:
        why, code = f"Invalid 'limit': expected a value <= {most}, but got {limit} instead.", "integer_above_max_value"
    else:
        return limit
    raise Refused(400, why, code=code, param="limit")
