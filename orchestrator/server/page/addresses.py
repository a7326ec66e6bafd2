"""Addresses of pages whose parts come from the user: ids of items, names of jobs, and what a list is filtered by."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from orchestrator.domain.errors import UsageError
from orchestrator.report.markup import Markup, tag

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import web

_FOLDERS = {".", ".."}  # browsers take these out of a path, however they are written


def with_query(path: str, **query: object) -> str:
    """Return an address with a query; what is None or empty is left out."""
    given = {name: str(value) for name, value in query.items() if value not in {None, ""}}
    return f"{path}?{urlencode(given)}" if given else path


def item_address(run: int, item_id: str) -> str:
    """Return the address of an item, whatever characters its id has."""
    if item_id in _FOLDERS:
        return with_query(f"/runs/{run}/items", id=item_id)
    return f"/runs/{run}/items/{quote(item_id, safe='')}"


def run_link(run: int, words: str | None = None) -> Markup:
    """Return a link to a run."""
    return tag("a", words or str(run), href=f"/runs/{run}")


def period_links(path: str, name: str, periods: Mapping[str, str], chosen: str) -> Markup:
    """Return links to a page for each of these periods; `name`: what the query calls them."""
    links = [
        tag("a", f"Last {words}", href=with_query(path, **{name: key}), aria_current="true" if key == chosen else None)
        for key, words in periods.items()
    ]
    return tag("p", *links, class_="pages")


def number_in(request: web.Request, name: str, *, least: int = 0) -> int | None:
    """Return a whole number of the query; None if it is not given. Raises `UsageError` if it is anything else."""
    given = request.query.get(name, "")
    if not given:
        return None
    if not (given.isdecimal() and given.isascii() and len(given) < 20 and least <= int(given) < 2**63):
        raise UsageError(f"{name} in the address is a whole number, at least {least}, and not {given[:40]!r}")
    return int(given)
