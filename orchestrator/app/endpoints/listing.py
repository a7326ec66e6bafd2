"""Listings of Hugging Face: the endpoints of namespaces, and the hardware for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

from orchestrator.app.endpoints.facts import job_facts, space_facts
from orchestrator.domain.errors import EndpointRefused, OrchestratorError, UsageError
from orchestrator.endpoints.hf_api import Management
from orchestrator.endpoints.hf_calls import Declined
from orchestrator.endpoints.hf_hardware import offers_in
from orchestrator.endpoints.hf_jobs_api import Jobs
from orchestrator.endpoints.hf_space import OF_SPACES
from orchestrator.endpoints.hf_spaces_api import Spaces
from orchestrator.engine.tasks import task_group

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.endpoints.hf_catalog import CatalogModel
    from orchestrator.endpoints.hf_hardware import Offer
    from orchestrator.endpoints.hf_spec import Description

EVERY_NAMESPACE = "*"  # the account and its organizations
_PRICES = 10.0  # seconds to wait for the price list
_AT_ONCE = 8  # organizations that are asked at once


@dataclass(slots=True)
class Listing:
    """The endpoints of a namespace, its jobs that are endpoints, its Spaces on paid hardware, and the price list.

    `refused` says why the endpoints cannot be listed, `jobs_refused` and `spaces_refused` why the others cannot.
    """

    namespace: str
    endpoints: tuple[Description, ...] = ()
    jobs: Sequence[Mapping[str, object]] = ()
    jobs_refused: OrchestratorError | None = None
    spaces: Sequence[Mapping[str, object]] = ()
    spaces_refused: OrchestratorError | None = None
    prices: Mapping[str, Any] = field(default_factory=dict)
    refused: OrchestratorError | None = None


async def endpoints_of(namespace: str | None) -> list[Listing]:
    """Return the Hugging Face endpoints of a namespace; of `EVERY_NAMESPACE`, those that the token may see.

    By default the namespace is that of the token. Raises an error if no namespace can be listed.
    """
    async with Management.open("" if namespace == EVERY_NAMESPACE else namespace) as management:
        if namespace != EVERY_NAMESPACE:
            one = Listing(management.namespace, await management.list(), prices=await _prices(management))
            await _fill_jobs(one, management)
            await _fill_spaces(one, management)
            return [one]
        account = await management.calls.whoami()
        found = [Listing(name) for name in dict.fromkeys((account.name, *account.organizations))]
        limit = anyio.CapacityLimiter(_AT_ONCE)
        async with task_group() as group:
            for one in found:
                group.start_soon(_fill, one, management.of(one.namespace), limit)
    if all(one.refused for one in found) and found[0].refused:
        raise found[0].refused
    return found


async def _fill(listing: Listing, management: Management, limit: anyio.CapacityLimiter) -> None:
    """Fill in a listing. A refusal is kept in it: many organizations have no billing, or do not admit this token."""
    async with limit:
        try:
            listing.endpoints = await management.list()
        except (EndpointRefused, Declined) as refusal:
            listing.refused = refusal
        else:
            listing.prices = await _prices(management) if listing.endpoints else {}
        await _fill_jobs(listing, management)
        await _fill_spaces(listing, management)


async def _fill_jobs(listing: Listing, management: Management) -> None:
    """Fill in the jobs. A refusal is kept in the listing: a token for endpoints may lack the scope for jobs."""
    jobs = Jobs(management.calls, "")
    try:
        for job in await jobs.of_all_endpoints():
            name = f"{listing.namespace}/{job.endpoint}"
            listing.jobs = [*listing.jobs, {"name": name} | await job_facts(jobs, job)]
    except OrchestratorError as refusal:
        listing.jobs_refused = refusal


async def _fill_spaces(listing: Listing, management: Management) -> None:
    """Fill in the Spaces that cost money while they run. A refusal is kept in the listing, as for jobs."""
    spaces = Spaces(management.calls)
    try:
        for name, runtime in await spaces.billed():
            facts = {"name": f"{OF_SPACES}{name}"} | await space_facts(spaces, runtime)
            listing.spaces = [*listing.spaces, facts]
    except OrchestratorError as refusal:
        listing.spaces_refused = refusal


async def _prices(management: Management) -> Mapping[str, Any]:
    """Return the price list; an empty one if it is not available."""
    with anyio.move_on_after(_PRICES):
        try:
            return await management.providers()
        except OrchestratorError:
            pass
    return {}


async def catalog_of(wanted: Mapping[str, str | None], limit: int | None) -> Sequence[CatalogModel]:
    """Return the models of the Inference Catalog that have the wanted properties."""
    async with Management.open("") as management:
        return await management.catalog(**wanted, limit=limit)


async def hardware_of(namespace: str | None, wanted: Mapping[str, str | None]) -> tuple[str, Sequence[Offer]]:
    """Return the namespace, and the hardware for its endpoints that has the wanted values."""
    async with Management.open(namespace) as management:
        return management.namespace, _matching(offers_in(await management.providers()), wanted)


def _matching(offers: Sequence[Offer], wanted: Mapping[str, str | None]) -> list[Offer]:
    """Return the offers with these values, in any case. Raises `UsageError` if there are none: one may be mistyped."""
    given = {key: value for key, value in wanted.items() if value is not None}
    found = [offer for offer in offers if all(_has(offer, key, value) for key, value in given.items())]
    if found or not offers:
        return found
    unknown = [
        f"--{key.replace('_', '-')} {value!r} (there is {', '.join(_values(offers, key))})"
        for key, value in given.items()
        if not any(_has(offer, key, value) for offer in offers)
    ]
    raise UsageError(f"no such hardware: {'; '.join(unknown) or 'no hardware has all of these values'}")


def _values(offers: Sequence[Offer], key: str) -> list[str]:
    return sorted({getattr(offer.hardware, key) for offer in offers})


def _has(offer: Offer, key: str, value: str) -> bool:
    found: str = getattr(offer.hardware, key)
    return found.lower() == value.lower()
