"""orchestrator endpoints hardware: list the hardware for Hugging Face endpoints, and its prices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Annotated

import typer
from rich.table import Table

from orchestrator.app.endpoints.listing import hardware_of
from orchestrator.cli.command import print_json, without_store
from orchestrator.cli.endpoints.list import price_words
from orchestrator.cli.endpoints.which import Namespace
from orchestrator.cli.options import AsJson
from orchestrator.cli.terminal import Terminal, say
from orchestrator.endpoints.hf_hardware import Offer

_COLUMNS = ("vendor", "region", "accelerator", "instance type", "size", "memory", "on the GPU", "per hour", "quota")


def hardware(
    context: typer.Context,
    namespace: Namespace = None,
    vendor: Annotated[
        str | None, typer.Option("--vendor", help="Only hardware of this vendor: aws, azure, gcp ...")
    ] = None,
    region: Annotated[str | None, typer.Option("--region", help="us-east-1 ...")] = None,
    accelerator: Annotated[str | None, typer.Option("--accelerator", help="cpu, gpu, neuron ...")] = None,
    instance_type: Annotated[str | None, typer.Option("--instance-type", help="nvidia-l4 ...")] = None,
    everything: Annotated[
        bool, typer.Option("-a", "--all", help="Include what is unavailable, deprecated or over the quota.")
    ] = False,
    json: AsJson = False,
) -> None:
    """List the hardware for Hugging Face endpoints: vendors, regions, instances, prices, quota.

    These are the values that `endpoints create` and `EndpointSpec` take. Prices are dollars an hour for one replica.
    The quota is that of the namespace: accelerators in use, and their limit.
    """
    wanted = {"vendor": vendor, "region": region, "accelerator": accelerator, "instance_type": instance_type}
    owner, offers = without_store(context, partial(hardware_of, namespace, wanted), json=json)
    shown = [offer for offer in offers if everything or offer.available]
    if json:
        print_json({"namespace": owner, "hardware": [_as_json(offer) for offer in shown]})
        return
    if shown:
        Terminal(width=1000).print(_table(shown))
    if len(shown) < len(offers):
        say(f"{len(offers) - len(shown)} more are not available now: --all shows them")
    elif not shown:
        say(f"the catalogue has no hardware for {owner}")


def _table(offers: Sequence[Offer]) -> Table:
    table = Table(*_COLUMNS, "status", box=None, pad_edge=False)
    for column in table.columns:
        column.no_wrap, column.overflow = True, "ignore"
    for offer in offers:
        at = offer.hardware
        table.add_row(
            *(at.vendor, at.region, at.accelerator, at.instance_type, at.instance_size),
            *(_gigabytes(offer.memory_gb), _gigabytes(offer.gpu_memory_gb), price_words(offer.price_per_hour)),
            *("-" if offer.most is None else f"{offer.used or 0}/{offer.most}", offer.status or "-"),
        )
    return table


def _gigabytes(amount: float | None) -> str:
    return "-" if amount is None else f"{amount:g} GB"


def _as_json(offer: Offer) -> dict[str, object]:
    facts = asdict(offer)
    return {**facts.pop("hardware"), **facts, "available": offer.available}
