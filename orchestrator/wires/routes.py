"""The URL of a wire's route, from a base URL as people write it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yarl import URL

_VERSION = re.compile(r"v\d+\w*")  # v1, v3, v1beta


def joined(base: URL, route: str) -> URL:
    """Return the base with the route at its end, without repetition; the query is kept.

    If the base ends with what the route begins with, that part is not repeated, so a base may be a server, a path on
    it, either of these with `/v1`, or the whole route. A base with its own version (`/api/v3`) gets no other one.
    """
    there = [part for part in base.raw_path.split("/") if part]
    parts = [part for part in route.split("/") if part]
    versioned = bool(parts) and _VERSION.fullmatch(parts[0]) is not None
    if versioned and (_ends_with(there, parts[1:]) or any(_VERSION.fullmatch(part) for part in there)):
        parts = parts[1:]
    shared = max(size for size in range(len(parts) + 1) if _ends_with(there, parts[:size]))
    return base.with_path("/" + "/".join(there + parts[shared:]), encoded=True, keep_query=True)


def without_version(base: URL) -> URL:
    """Return the base without a `/v1` at its end, for servers that have only some of their routes under it."""
    there = [part for part in base.raw_path.split("/") if part]
    if there[-1:] != ["v1"]:
        return base
    return base.with_path("/" + "/".join(there[:-1]), encoded=True, keep_query=True)


def _ends_with(parts: list[str], end: list[str]) -> bool:
    return parts[len(parts) - len(end) :] == end if len(end) <= len(parts) else False
