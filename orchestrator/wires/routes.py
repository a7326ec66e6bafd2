"""A base URL as people write it, and a wire's route -> the URL that is asked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yarl import URL

_VERSION = re.compile(r"v\d+\w*")  # v1, v3, v1beta


def joined(base: URL, route: str) -> URL:
    """The base with the route at its end, and nothing twice; the query is kept.

    What the base ends with and the route begins with counts once, so that a base may be a server, a path on it, either
    with `/v1`, or the whole route. A base that names a version of its own (`/api/v3`) gets no other.
    """
    there = [part for part in base.raw_path.split("/") if part]
    parts = [part for part in route.split("/") if part]
    versioned = bool(parts) and _VERSION.fullmatch(parts[0]) is not None
    if versioned and (_ends_with(there, parts[1:]) or any(_VERSION.fullmatch(part) for part in there)):
        parts = parts[1:]
    shared = max(size for size in range(len(parts) + 1) if _ends_with(there, parts[:size]))
    return base.with_path("/" + "/".join(there + parts[shared:]), encoded=True, keep_query=True)


def without_version(base: URL) -> URL:
    """The base without a `/v1` at its end, for servers that have some routes under it and others not."""
    there = [part for part in base.raw_path.split("/") if part]
    if there[-1:] != ["v1"]:
        return base
    return base.with_path("/" + "/".join(there[:-1]), encoded=True, keep_query=True)


def _ends_with(parts: list[str], end: list[str]) -> bool:
    return parts[len(parts) - len(end) :] == end if len(end) <= len(parts) else False
