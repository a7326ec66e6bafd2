"""orchestrator endpoints list: every Hugging Face endpoint of a namespace."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import typer
from rich.table import Table

from orchestrator.cli.command import Missing, print_json, with_store
from orchestrator.cli.endpoints.which import Namespace
from orchestrator.cli.run import AsJson
from orchestrator.cli.terminal import Terminal, say
from orchestrator.domain.errors import OrchestratorError
from orchestrator.endpoints.hf_api import Management
from orchestrator.endpoints.hf_spec import price_in

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.endpoints.hf_spec import Description, Hardware
    from orchestrator.store import Store

_PRICES = 10.0  # seconds that the price list is waited for


def list_(context: typer.Context, namespace: Namespace = None, json: AsJson = False) -> None:
    """List the Hugging Face endpoints of a namespace: state, hardware, price per hour, URL."""
    owner, found, prices = with_store(context, partial(_list, namespace), json=json, missing=Missing.LEND)
    if json:
        print_json({"namespace": owner, "endpoints": [_as_json(owner, one, prices) for one in found]})
        return
    table = Table("name", "state", "hardware", "per hour", "url", box=None, pad_edge=False)
    for column in table.columns:
        column.no_wrap, column.overflow = True, "ignore"
    for one in found:
        price = price_in(prices, one.hardware)
        cells = (f"{owner}/{one.name}", one.state, hardware_words(one.hardware), price_words(price), one.url or "-")
        table.add_row(*cells)
    Terminal(width=1000).print(table) if found else say(f"{owner} has no endpoints")


async def _list(namespace: str | None, _store: Store) -> tuple[str, tuple[Description, ...], Mapping[str, Any]]:
    async with Management.open(namespace) as management:
        return management.namespace, await management.list(), await _prices(management)


async def _prices(management: Management) -> Mapping[str, Any]:
    """The price list; nothing where it cannot be had."""
    with anyio.move_on_after(_PRICES):
        try:
            return await management.providers()
        except OrchestratorError:
            pass
    return {}


def hardware_words(hardware: Hardware) -> str:
    """`aws us-east-1 nvidia-l4 x1`."""
    return f"{hardware.vendor} {hardware.region} {hardware.instance_type} {hardware.instance_size}".strip()


def price_words(price: float | None) -> str:
    """Dollars an hour."""
    return "an unknown price" if price is None else f"${price:g}"


def _as_json(owner: str, one: Description, prices: Mapping[str, Any]) -> dict[str, object]:
    return {
        "name": f"{owner}/{one.name}",
        "state": one.state,
        "message": one.message,
        "url": one.url,
        "repository": one.repository,
        "hardware": asdict(one.hardware),
        "price_per_hour": price_in(prices, one.hardware),
    }
