"""What the commands say about endpoints of SageMaker: facts, logs from CloudWatch, and missing permissions."""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread

from orchestrator.config import load_settings
from orchestrator.domain.errors import EndpointRefused, UsageError
from orchestrator.endpoints import SageMakerEndpoint
from orchestrator.endpoints.aws_calls import AwsCalls, AwsDeclined
from orchestrator.endpoints.named import declared
from orchestrator.endpoints.sagemaker_api import SageMaker
from orchestrator.endpoints.sagemaker_control import TAG
from orchestrator.wires.aws_failures import permission_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping

    from orchestrator.endpoints.sagemaker_api import ConfigDescription

_SHOWN_SECONDS = 24 * 3600.0  # of a log: CloudWatch may keep years
_BETWEEN_PAGES = 2.0  # seconds, of a log that is followed


async def permissions_of(endpoint: SageMakerEndpoint) -> str:
    """Try what reads, what invokes and what deletes. Raises `EndpointRefused` with all permissions that are missing."""
    refused: list[EndpointRefused] = []
    async with endpoint.api() as api, endpoint.control() as control:
        looks: list[Callable[[], Awaitable[object]]] = [partial(api.endpoint, endpoint.endpoint)]
        if endpoint.component is None:
            looks += [partial(_try_tags, api, endpoint), partial(_try_deletion, api, endpoint.endpoint)]
        else:
            looks += [partial(api.component, endpoint.component), partial(api.components, endpoint.endpoint)]
        for look in (*looks, control.answers):
            try:
                await look()
            except EndpointRefused as refusal:
                refused.append(refusal)
        source = api.calls.access.source
    if missing := [permission for refusal in refused if (permission := permission_in(str(refusal))) is not None]:
        raise EndpointRefused(f"the IAM policy has to allow {', '.join(dict.fromkeys(missing))}")
    if refused:
        raise refused[0]
    return f"credentials from {source} may read and invoke it; the rest is tried by --wake when it is asleep"


async def _try_tags(api: SageMaker, endpoint: SageMakerEndpoint) -> None:
    """Read the configuration and the tags; without an endpoint, those that one of its name would have."""
    found, planned = await api.endpoint(endpoint.endpoint), await api.config(endpoint.config or endpoint.endpoint)
    if found is not None:
        await api.tags(found.arn)
    elif planned is not None:
        await api.tags(planned.arn_of_endpoint(endpoint.endpoint))


async def _try_deletion(api: SageMaker, name: str) -> None:
    """Delete an endpoint that does not exist, so that no run creates what it may not delete.

    Nothing can be lost by that: one that somebody creates in this moment cannot be deleted while it is being created.
    """
    if await api.endpoint(name) is None:
        with suppress(AwsDeclined):
            await api.delete(name)


async def facts_of_sagemaker(endpoint: SageMakerEndpoint) -> dict[str, object]:
    """Return what SageMaker says about an endpoint or a component, and about its configuration."""
    async with endpoint.api() as api, endpoint.control() as control:
        await control.state()
        found = await api.endpoint(endpoint.endpoint)
        name = endpoint.config or endpoint.endpoint if found is None else found.config
        config = await api.config(name)
        instances = sum(variant.instances for variant in found.variants) if found is not None else 0
        return {
            "endpoint": control.terms.endpoint,
            "kind": "SageMakerEndpoint",
            "state": control.status_text,
            "serves": endpoint.model,
            "configuration": name if config is not None else f"{name}, which does not exist",
            "instances": instances,
            "instance_types": None if config is None else _types(config),
            "price_per_hour": endpoint.price_per_hour,
        }


async def endpoints_in(region: str) -> list[dict[str, object]]:
    """Return all endpoints of a region: state, hardware, the price in the settings file, and whether a run made it."""
    async with AwsCalls.open(region, None) as calls:
        api, found = SageMaker(calls), list[dict[str, object]]()
        prices = await to_thread.run_sync(_prices_in, region)
        for name in await api.endpoints():
            shown = await api.endpoint(name)
            if shown is None:
                continue  # deleted meanwhile
            config = await api.config(shown.config)
            found.append(
                {
                    "name": f"{region}/{name}",
                    "state": shown.status,
                    "message": shown.reason or None,
                    "hardware": f"{_types(config) if config else '?'} x{sum(one.instances for one in shown.variants)}",
                    "price_per_hour": prices.get(name),
                    "created_by_a_run": TAG in await api.tags(shown.arn),
                }
            )
        return found


def _prices_in(region: str) -> dict[str, float]:
    """Return what the settings file says about the prices of endpoints, by their names at SageMaker."""
    kinds = load_settings(None, None).endpoints
    known = [declared(name, settings) for name, settings in kinds.items() if settings.get("kind") == "sagemaker"]
    return {
        endpoint.endpoint: endpoint.price_per_hour
        for endpoint in known
        if isinstance(endpoint, SageMakerEndpoint)
        and endpoint.price_per_hour is not None
        and endpoint.component is None
        and endpoint.region in {None, region}
    }


def _types(config: ConfigDescription) -> str:
    return ", ".join(variant.instance_type or "serverless" for variant in config.variants)


async def lines_of_sagemaker(
    endpoint: SageMakerEndpoint, *, follow: bool, tail: int | None, stream: str | None
) -> AsyncGenerator[str, None]:
    """Yield the lines of the last day in the endpoint's log group, and with `follow` new ones.

    `stream`: the log stream of one instance.
    """
    since = int((time.time() - _SHOWN_SECONDS) * 1000)
    only: Mapping[str, object] = {} if stream is None else {"logStreamNames": [stream]}
    seen = set[str]()
    async with endpoint.api() as api:
        old = deque[str](maxlen=tail)
        async for event in _events(api, endpoint, {**only, "startTime": since}):
            seen.add(str(event.get("eventId")))
            since = max(since, int(event.get("timestamp", 0)))
            old.append(_line(event))
        for line in old:
            yield line
        while follow:
            await anyio.sleep(_BETWEEN_PAGES)
            new, begin = set[str](), since
            async for event in _events(api, endpoint, {**only, "startTime": begin}):
                new.add(str(event.get("eventId")))
                since = max(since, int(event.get("timestamp", 0)))
                if str(event.get("eventId")) not in seen:
                    yield _line(event)
            seen = new  # all events since `begin`; those before it do not come again


async def _events(
    api: SageMaker, endpoint: SageMakerEndpoint, where: Mapping[str, object]
) -> AsyncIterator[Mapping[str, Any]]:
    token: object = None
    while True:
        more = {} if token is None else {"nextToken": token}
        try:
            page = await api.log_page(endpoint.endpoint, {**where, **more})
        except AwsDeclined as declined:
            if declined.missing:
                raise UsageError(f"endpoint {endpoint.name} has no log, or no such log stream") from declined
            raise
        for event in page.get("events") or ():
            yield event
        if not (token := page.get("nextToken")):
            return


def _line(event: Mapping[str, Any]) -> str:
    return str(event.get("message", "")).rstrip("\n")
