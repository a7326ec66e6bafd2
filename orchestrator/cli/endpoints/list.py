"""orchestrator endpoints list: what a Hugging Face namespace has (endpoints, jobs, Spaces), or a SageMaker region."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from orchestrator.app.endpoints.listing import EVERY_NAMESPACE, Listing, endpoints_of
from orchestrator.app.endpoints.sagemaker import endpoints_in
from orchestrator.cli.command import fail, print_json, without_store
from orchestrator.cli.endpoints.which import NAMESPACE
from orchestrator.cli.options import AsJson
from orchestrator.cli.terminal import STDERR, Terminal, say
from orchestrator.domain.errors import UsageError
from orchestrator.endpoints.hf_hardware import price_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.endpoints.hf_hardware import Hardware
    from orchestrator.endpoints.hf_spec import Description

Namespaces = Annotated[
    str | None,
    typer.Option("--namespace", help=f"{NAMESPACE} '*': the account and its organizations.", metavar="NAME"),
]
Region = Annotated[
    str | None,
    typer.Option("--region", help="List SageMaker's endpoints in this region instead.", metavar="REGION"),
]


def list_(context: typer.Context, namespace: Namespaces = None, region: Region = None, json: AsJson = False) -> None:
    """List the Hugging Face endpoints of a namespace, jobs that are one, and Spaces on paid hardware, with prices."""
    if region is not None:
        if namespace is not None:
            fail(UsageError("--region is for SageMaker, --namespace for Hugging Face: give one of them"), json=json)
        _list_region(without_store(context, partial(endpoints_in, region), json=json), region, json=json)
        return
    found = without_store(context, partial(endpoints_of, namespace), json=json)
    if json:
        refused = {one.namespace: str(one.refused) for one in found if one.refused}
        endpoints = [_as_json(one, endpoint) for one in found for endpoint in one.endpoints]
        owner = EVERY_NAMESPACE if namespace == EVERY_NAMESPACE else found[0].namespace
        jobs = [job for one in found for job in one.jobs]
        spaces = [space for one in found for space in one.spaces]
        print_json({"namespace": owner, "endpoints": endpoints, "jobs": jobs, "spaces": spaces, "refused": refused})
        return
    _say_refusals(found)
    table = _table("name", "state", "hardware", "per hour", "url")
    for one in found:
        for endpoint in one.endpoints:
            price = price_words(price_in(one.prices, endpoint.hardware))
            name, hardware = f"{one.namespace}/{endpoint.name}", hardware_words(endpoint.hardware)
            table.add_row(name, endpoint.state, hardware, price, endpoint.url or "-")
        for job in one.jobs:
            _add_row(table, job, f"job {job['stage']}")
        for space in one.spaces:
            _add_row(table, space, str(space["state"]))
    none = " and ".join(f"{one.namespace} has no endpoints" for one in found if not one.refused)
    Terminal(width=1000).print(table) if table.rows else say(none)


def _list_region(found: Sequence[Mapping[str, object]], region: str, *, json: bool) -> None:
    if json:
        print_json({"region": region, "endpoints": found})
        return
    table = _table("name", "state", "hardware", "per hour", "created by")
    for facts in found:
        price, maker = facts["price_per_hour"], "a run" if facts["created_by_a_run"] else "somebody else"
        words = price_words(price if isinstance(price, float) else None)
        table.add_row(str(facts["name"]), str(facts["state"]), str(facts["hardware"]), words, maker)
    Terminal(width=1000).print(table) if found else say(f"{region} has no endpoints")


def _table(*columns: str) -> Table:
    table = Table(*columns, box=None, pad_edge=False)
    for column in table.columns:
        column.no_wrap, column.overflow = True, "ignore"
    return table


def _say_refusals(found: Sequence[Listing]) -> None:
    for one in found:
        if one.refused:
            STDERR.print(f"{one.namespace} is not listed: {one.refused}", style="dim")
        for what, refusal in (("jobs", one.jobs_refused), ("Spaces", one.spaces_refused)):
            if refusal and not one.refused:
                STDERR.print(f"{what} of {one.namespace} are not listed: {refusal}", style="dim")


def _add_row(table: Table, facts: Mapping[str, object], state: str) -> None:
    hourly = facts["price_per_hour"]
    price = price_words(hourly if isinstance(hourly, float) else None)
    table.add_row(str(facts["name"]), state, str(facts["hardware"]), price, str(facts.get("url") or "-"))


def hardware_words(hardware: Hardware) -> str:
    """Return for example `aws us-east-1 nvidia-l4 x1`."""
    return f"{hardware.vendor} {hardware.region} {hardware.instance_type} {hardware.instance_size}".strip()


def price_words(price: float | None) -> str:
    """Return a price in dollars an hour, in words."""
    return "an unknown price" if price is None else f"${price:g}"


def _as_json(listing: Listing, one: Description) -> dict[str, object]:
    return {
        "name": f"{listing.namespace}/{one.name}",
        "state": one.state,
        "message": one.message,
        "url": one.url,
        "repository": one.repository,
        "hardware": asdict(one.hardware),
        "price_per_hour": price_in(listing.prices, one.hardware),
    }
