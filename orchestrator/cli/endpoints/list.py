"""orchestrator endpoints list: list the Hugging Face endpoints of a namespace, or of all that the token may see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import typer
from rich.table import Table

from orchestrator.cli.command import Missing, print_json, with_store
from orchestrator.cli.endpoints.which import NAMESPACE
from orchestrator.cli.run import AsJson
from orchestrator.cli.terminal import STDERR, Terminal, say
from orchestrator.domain.errors import EndpointRefused, OrchestratorError
from orchestrator.endpoints.hf_api import Declined, Management
from orchestrator.endpoints.hf_spec import price_in
from orchestrator.engine.tasks import task_group

if TYPE_CHECKING:
    from orchestrator.endpoints.hf_spec import Description, Hardware
    from orchestrator.store import Store

Namespaces = Annotated[
    str | None,
    typer.Option("--namespace", help=f"{NAMESPACE} '*': the account and its organizations.", metavar="NAME"),
]
_EVERY = "*"
_PRICES = 10.0  # seconds to wait for the price list
_AT_ONCE = 8  # organizations that are asked at once


@dataclass(slots=True)
class _Listing:
    """The endpoints of a namespace, and the price list. `refused` says why they cannot be listed."""

    namespace: str
    endpoints: tuple[Description, ...] = ()
    prices: Mapping[str, Any] = field(default_factory=dict)
    refused: OrchestratorError | None = None


def list_(context: typer.Context, namespace: Namespaces = None, json: AsJson = False) -> None:
    """List the Hugging Face endpoints of a namespace: state, hardware, price per hour, URL."""
    found = with_store(context, partial(_list, namespace), json=json, missing=Missing.LEND)
    if json:
        refused = {one.namespace: str(one.refused) for one in found if one.refused}
        endpoints = [_as_json(one, endpoint) for one in found for endpoint in one.endpoints]
        owner = _EVERY if namespace == _EVERY else found[0].namespace
        print_json({"namespace": owner, "endpoints": endpoints, "refused": refused})
        return
    for one in found:
        if one.refused:
            STDERR.print(f"{one.namespace} is not listed: {one.refused}", style="dim")
    table = Table("name", "state", "hardware", "per hour", "url", box=None, pad_edge=False)
    for column in table.columns:
        column.no_wrap, column.overflow = True, "ignore"
    for one in found:
        for endpoint in one.endpoints:
            price = price_words(price_in(one.prices, endpoint.hardware))
            name, hardware = f"{one.namespace}/{endpoint.name}", hardware_words(endpoint.hardware)
            table.add_row(name, endpoint.state, hardware, price, endpoint.url or "-")
    none = " and ".join(f"{one.namespace} has no endpoints" for one in found if not one.refused)
    Terminal(width=1000).print(table) if table.rows else say(none)


async def _list(namespace: str | None, _store: Store) -> list[_Listing]:
    async with Management.open("" if namespace == _EVERY else namespace) as management:
        if namespace != _EVERY:
            return [_Listing(management.namespace, await management.list(), await _prices(management))]
        account = await management.whoami()
        found = [_Listing(name) for name in dict.fromkeys((account.name, *account.organizations))]
        limit = anyio.CapacityLimiter(_AT_ONCE)
        async with task_group() as group:
            for one in found:
                group.start_soon(_fill, one, management.of(one.namespace), limit)
    if all(one.refused for one in found) and found[0].refused:
        raise found[0].refused
    return found


async def _fill(listing: _Listing, management: Management, limit: anyio.CapacityLimiter) -> None:
    """Fill in a listing. A refusal is kept in it: many organizations have no billing, or do not admit this token."""
    async with limit:
        try:
            listing.endpoints = await management.list()
        except (EndpointRefused, Declined) as refusal:
            listing.refused = refusal
        else:
            listing.prices = await _prices(management) if listing.endpoints else {}


async def _prices(management: Management) -> Mapping[str, Any]:
    """Return the price list; an empty one if it is not available."""
    with anyio.move_on_after(_PRICES):
        try:
            return await management.providers()
        except OrchestratorError:
            pass
    return {}


def hardware_words(hardware: Hardware) -> str:
    """Return for example `aws us-east-1 nvidia-l4 x1`."""
    return f"{hardware.vendor} {hardware.region} {hardware.instance_type} {hardware.instance_size}".strip()


def price_words(price: float | None) -> str:
    """Return a price in dollars an hour, in words."""
    return "an unknown price" if price is None else f"${price:g}"


def _as_json(listing: _Listing, one: Description) -> dict[str, object]:
    return {
        "name": f"{listing.namespace}/{one.name}",
        "state": one.state,
        "message": one.message,
        "url": one.url,
        "repository": one.repository,
        "hardware": asdict(one.hardware),
        "price_per_hour": price_in(listing.prices, one.hardware),
    }
