"""Creating and changing Hugging Face endpoints."""

from __future__ import annotations

from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.app.endpoints.lookup import management
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import EndpointFailed, OrchestratorError
from orchestrator.endpoints.hf_spec import secret_values
from orchestrator.engine.awake.by_hand import Waking, absent, kept_by_hand, until_it_answers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from orchestrator.endpoints import EndpointSpec, HuggingFaceEndpoint
    from orchestrator.endpoints.hf_catalog import Deployment
    from orchestrator.endpoints.hf_spec import Description, EndpointChanges
    from orchestrator.store import Store


@dataclass(frozen=True, slots=True)
class Made:
    """An endpoint that was created or changed. `price`: dollars an hour for one replica, if it is known."""

    name: str
    description: Description
    price: float | None


async def create(
    endpoint: HuggingFaceEndpoint, spec: EndpointSpec, store: Store, say: Callable[[str], None], *, wait: bool
) -> Made:
    """Create an endpoint. It starts at once; the ledger records who keeps it awake.

    `wait`: return once it answers; meanwhile, `say` gets its status.
    """
    values = secret_values(spec.variables)
    async with management(endpoint) as (api, name), endpoint.control() as control:
        price = await api.price(spec.hardware)
        found = await control.state()
        async with AsyncExitStack() as stack:
            if found is EndpointState.GONE:  # otherwise the service refuses the request
                terms = replace(control.terms, price_per_hour=price)
                await stack.enter_async_context(kept_by_hand(store, control, terms, Waking("create"), found))
            with _hidden(values):
                description = await api.create(spec.body(name))
    made = Made(f"{api.namespace}/{description.name}", description, price)
    return await _answering(endpoint, made, say) if wait else made


async def deploy(
    endpoint: HuggingFaceEndpoint,
    wanted: Deployment,
    settings: EndpointChanges,
    store: Store,
    say: Callable[[str], None],
    *,
    wait: bool,
) -> Made:
    """Create an endpoint from the Inference Catalog, and change these settings of it. Otherwise as `create`."""
    async with management(endpoint) as (api, name), endpoint.control() as control:
        found = await control.state()
        async with AsyncExitStack() as stack:
            window = None
            if found is EndpointState.GONE:  # otherwise the service refuses the request
                keeping = kept_by_hand(store, control, control.terms, Waking("deploy"), found)
                window = await stack.enter_async_context(keeping)
            description = await api.deploy(name, wanted)
            price = await api.price(description.hardware)  # the catalog chooses the hardware
            if window is not None:
                await store.windows.take_on(window, control.terms, price)
            description = await api.update(name, settings.body(description.image))
    made = Made(f"{api.namespace}/{description.name}", description, price)
    return await _answering(endpoint, made, say) if wait else made


async def update(
    endpoint: HuggingFaceEndpoint, changes: EndpointChanges, store: Store, say: Callable[[str], None], *, wait: bool
) -> Made:
    """Change an endpoint's settings. A running endpoint is restarted with them. `wait` and `say` as in `create`."""
    values = secret_values(changes.secrets)
    async with management(endpoint) as (api, name), endpoint.control() as control:
        found = await control.state()
        present = await api.get(name)
        if present is None:
            raise absent(f"{api.namespace}/{name}")
        body = changes.body(present.image)
        with _hidden(values):
            description = await api.update(name, body)
        price = await api.price(description.hardware)
        if found.asleep and not (await control.state()).asleep:  # raising the minimum of replicas wakes it
            terms = replace(control.terms, price_per_hour=price)
            async with kept_by_hand(store, control, terms, Waking("update"), found):
                pass
    made = Made(f"{api.namespace}/{description.name}", description, price)
    return await _answering(endpoint, made, say) if wait else made


async def _answering(endpoint: HuggingFaceEndpoint, made: Made, say: Callable[[str], None]) -> Made:
    """Wait until a starting endpoint answers, and return it as it is then."""
    if made.description.state in {"paused", "scaledToZero"}:
        return made
    async with endpoint.control() as control:
        await until_it_answers(control, made.name, endpoint.startup_timeout, say)
    async with management(endpoint) as (api, name):
        return replace(made, description=await api.get(name) or made.description)


@contextmanager
def _hidden(values: Mapping[str, str]) -> Iterator[None]:
    """Hide these values if an error message in the block repeats one."""
    try:
        yield
    except OrchestratorError as error:
        shown = str(error)
        for value in values.values():
            shown = shown.replace(value, "***")
        if shown == str(error):
            raise
        raise EndpointFailed(shown) from None
