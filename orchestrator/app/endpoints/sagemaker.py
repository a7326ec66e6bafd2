"""What the commands say about endpoints of SageMaker: facts, logs from CloudWatch, and missing permissions."""

from __future__ import annotations

import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from orchestrator.domain.errors import EndpointRefused, UsageError
from orchestrator.endpoints.aws_calls import AwsDeclined
from orchestrator.wires.aws_failures import permission_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping

    from orchestrator.endpoints import SageMakerEndpoint
    from orchestrator.endpoints.sagemaker_api import ConfigDescription, SageMaker

_SHOWN_SECONDS = 24 * 3600.0  # of a log: CloudWatch may keep years
_BETWEEN_PAGES = 2.0  # seconds, of a log that is followed


async def permissions_of(endpoint: SageMakerEndpoint) -> str:
    """Try what reads and what invokes. Raises `EndpointRefused` with all permissions that are missing."""
    refused: list[EndpointRefused] = []
    async with endpoint.api() as api, endpoint.control() as control:
        name, config = endpoint.endpoint, endpoint.config or endpoint.endpoint

        async def tags() -> None:
            if (found := await api.endpoint(name)) is not None:
                await api.tags(found.arn)

        looks: list[Callable[[], Awaitable[object]]] = [tags, control.answers]
        if endpoint.component is None:
            looks.append(partial(api.config, config))
        else:
            looks += [partial(api.component, endpoint.component), partial(api.components, name)]
        for look in looks:
            try:
                await look()
            except EndpointRefused as refusal:
                refused.append(refusal)
        source = api.calls.access.source
    if missing := [permission for refusal in refused if (permission := permission_in(str(refusal))) is not None]:
        raise EndpointRefused(f"the IAM policy has to allow {', '.join(missing)}")
    if refused:
        raise refused[0]
    return f"credentials from {source} may read and invoke it; --wake tries the rest"


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
