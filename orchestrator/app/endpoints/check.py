"""One real request to an endpoint, with a verdict on every step."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import orjson
from yarl import URL

from orchestrator.app.endpoints.lookup import address, management
from orchestrator.app.endpoints.sagemaker import permissions_of
from orchestrator.domain.answer import Answer
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import EndpointFailed, EndpointLost, OrchestratorError, RequestFailed
from orchestrator.domain.events import Phase
from orchestrator.domain.step import Step, milliseconds
from orchestrator.domain.terms import Pause
from orchestrator.endpoints import (
    CommandEndpoint,
    HttpEndpoint,
    HuggingFaceEndpoint,
    HuggingFaceJobEndpoint,
    HuggingFaceSpaceEndpoint,
    SageMakerEndpoint,
)
from orchestrator.endpoints.hf_calls import api_url_of, hub_url
from orchestrator.endpoints.http import bearer
from orchestrator.endpoints.reach import ServerAddress, said_to_get, served_models
from orchestrator.engine.awake.by_hand import absent
from orchestrator.engine.progress import Progress
from orchestrator.wires.openai import OpenAIChatWire

if TYPE_CHECKING:
    from orchestrator.domain.policy import Policy
    from orchestrator.engine.awake.awake import Awake
    from orchestrator.ports import ControlPlane, DataPlane, Endpoint

Lend = Callable[["Endpoint", Progress, str], "AbstractAsyncContextManager[Awake]"]
Steps = dict[str, Callable[[], Awaitable[str]]]
_SHOWN = 120  # characters of an answer that are shown


class EndpointCheck:
    """The steps of one check. Each needs those before it."""

    def __init__(self, endpoint: Endpoint, text: str, policy: Policy, say: Callable[[str], None] | None) -> None:
        self.name = endpoint.name
        self.steps: list[Step] = []
        self.progress = Progress(step=Phase.WAKE)
        self._endpoint = endpoint
        self._server: ServerAddress
        self._request = orjson.dumps(text)
        self._policy = policy
        self._say = say
        self._stack: AsyncExitStack
        self._control: ControlPlane
        self._model: DataPlane | None = None
        self._latency_seconds = 0.0

    @property
    def ok(self) -> bool:
        """Whether all steps succeeded."""
        return all(step.verdict == "ok" for step in self.steps)

    async def run(self, lend: Lend | None) -> None:
        """Take the steps up to the first that fails, and leave the endpoint as it was.

        `lend` wakes it if it is asleep (`App.awake`); without it, nothing is woken.
        """
        self._server = await _first_server(self._endpoint)
        network: Steps = {"DNS": self._dns, "TLS": self._tls}
        control: Steps = {"token": self._token, "state": partial(self._state, lend)}
        behind: Steps = {"health": self._health, "wire": self._wire, "latency": self._latency}
        own_commands = isinstance(self._endpoint, CommandEndpoint)  # its server may not exist while it is asleep
        steps = (control | network if own_commands else network | control) | behind
        async with AsyncExitStack() as self._stack:
            for name, step in steps.items():
                self._tell(await self._taken(name, step) if self.ok else Step(name, "not tried"))
            self.progress.step = Phase.PAUSE
        for proof in self.progress.proofs:
            self._tell(Step("pause", "ok", proof))

    async def _taken(self, name: str, step: Callable[[], Awaitable[str]]) -> Step:
        begun = time.monotonic()
        try:
            message = await step()
        except (OrchestratorError, RequestFailed, EndpointLost) as failure:
            return Step(name, "failed", str(failure), time.monotonic() - begun)
        return Step(name, "ok", message, time.monotonic() - begun)

    def _tell(self, step: Step) -> None:
        self.steps.append(step)
        if self._say is not None:
            self._say(str(step))

    # -- the steps: each returns a message, or raises ------------------------------------------------------------------

    async def _dns(self) -> str:
        if (proxy := self._server.proxy) is not None:
            where = ServerAddress.of(proxy)
            return f"left to the proxy {where.host}:{where.port}, which is {', '.join(await where.addresses())}"
        addresses = await self._server.addresses()
        return f"{self._server.host} is {', '.join(addresses)}"

    async def _tls(self) -> str:
        return await _protocol(self._server)

    async def _token(self) -> str:
        """Check the token with Hugging Face, or what credentials of AWS may do.

        Other servers do not validate a token before the request itself.
        """
        endpoint = self._endpoint
        if isinstance(endpoint, SageMakerEndpoint):
            return await permissions_of(endpoint)
        if isinstance(endpoint, HuggingFaceEndpoint):
            async with management(endpoint) as (api, name):
                self.name = f"{api.namespace}/{name}"
                await api.get(name)
                return f"{api.calls.token.source} is accepted"
        if isinstance(endpoint, HuggingFaceSpaceEndpoint):
            async with endpoint.spaces() as spaces:
                await spaces.check_permission(endpoint.space.partition("/")[2])
                return f"{spaces.calls.token.source} is accepted, and may restart and pause the Space"
        async with endpoint.control():
            variable = getattr(endpoint, "token_env", None)
            return "none is sent" if variable is None else f"the environment variable {variable} is set"

    async def _state(self, lend: Lend | None) -> str:
        self._control = control = await self._stack.enter_async_context(self._endpoint.control())
        state = await control.state()
        if control.terms is None:
            return "kept running by somebody else"
        if state is EndpointState.GONE:
            raise absent(self.name)
        if state is EndpointState.FAILED:
            raise EndpointFailed(control.status_text)
        if state is EndpointState.AWAKE:
            return control.status_text
        if lend is None:
            rest = "try again in a minute" if state is EndpointState.STARTING else "--wake wakes it for the check"
            raise EndpointFailed(f"{control.status_text}: it does not answer now; {rest}")
        status_before = control.status_text
        lent = await self._stack.enter_async_context(lend(_left_as_found(self._endpoint), self.progress, "(check)"))
        self._model = await self._stack.enter_async_context(lent.connect(self._policy))
        await control.state()
        return f"it was {status_before}, and was woken: {control.status_text}"

    async def _health(self) -> str:
        """Check that the data plane answers. If it is on another host, also check that host's name and encryption."""
        control, endpoint = self._control, self._endpoint
        url, route = await _behind(endpoint)
        server, where = ServerAddress.of(url), ""
        if server != self._server:
            where = f" at {server.host}, {(server.proxy or await server.addresses()) and await _protocol(server)}"
        if await control.answers():
            if isinstance(endpoint, SageMakerEndpoint):
                return f"the container answers{where}"
            return f"{f'GET {route} was answered 200' if route else 'it accepts connections'}{where}"
        if not isinstance(endpoint, HuggingFaceEndpoint):
            raise EndpointFailed(control.status_text)
        async with management(endpoint) as (api, _):
            answer = await said_to_get(url.rstrip("/") + route, api.calls.token.headers)
        raise EndpointFailed(f"GET {route} was answered {api.calls.secrets.hidden_in(answer)}{where}")

    async def _wire(self) -> str:
        if self._model is None:
            self._model = await self._stack.enter_async_context(self._control.connect(self._policy))
        begun = time.monotonic()
        (answer,) = await self._model.ask([self._request])
        self._latency_seconds = time.monotonic() - begun
        if isinstance(answer, RequestFailed):
            raise answer
        value = answer.value if isinstance(answer, Answer) else answer
        text = orjson.dumps(value, default=str).decode()
        return f"answered {text if len(text) <= _SHOWN else text[: _SHOWN - 1] + '…'}"

    async def _latency(self) -> str:
        return f"{milliseconds(self._latency_seconds)} from sending to the last byte, including connecting"


async def as_it_speaks(endpoint: HttpEndpoint) -> HttpEndpoint:
    """Return the endpoint with a wire that its server supports, as far as is known without a request to the model."""
    models = await served_models(URL(endpoint.url), bearer(endpoint.token_env, endpoint.name))
    return replace(endpoint, wire=OpenAIChatWire(models[0])) if models else endpoint


async def _behind(endpoint: Endpoint) -> tuple[str, str]:
    """Return the URL of the data plane, and its health route. Raises `EndpointFailed` if it has no URL yet."""
    url, route = address(endpoint), str(getattr(endpoint, "health", None) or "")
    match endpoint:
        case HuggingFaceEndpoint():
            async with management(endpoint) as (api, name):
                found = await api.get(name)
            url, route = ("", "") if found is None else (found.url or "", found.health_route)
        case HuggingFaceJobEndpoint():
            async with endpoint.jobs() as jobs:
                url = next((address for job in await jobs.alive() for address in job.urls), "")
        case HuggingFaceSpaceEndpoint():
            async with endpoint.spaces() as spaces:
                url = (await spaces.address(endpoint.space.partition("/")[2])).url
        case SageMakerEndpoint():
            async with endpoint.api() as sagemaker:
                url = sagemaker.calls.access.url("sagemaker-runtime")
    if not url:
        raise EndpointFailed("it has no URL yet")
    return url, route


async def _protocol(server: ServerAddress) -> str:
    if server.proxy is not None:
        return f"through the proxy: {await server.reached_by_proxy()}"
    found = await server.protocol()
    if found is not None:
        return found
    local = all(ipaddress.ip_address(address).is_loopback for address in await server.addresses())
    return "plain http, loopback" if local else "plain http: nothing is encrypted"


def _left_as_found(endpoint: Endpoint) -> Endpoint:
    """Return the endpoint with settings that pause it only if the check woke it, even if runs always pause it."""
    match endpoint:
        case HuggingFaceEndpoint() | HuggingFaceJobEndpoint() | HuggingFaceSpaceEndpoint() | SageMakerEndpoint():
            return replace(endpoint, pause=Pause.IF_RESUMED)
        case CommandEndpoint():
            return replace(endpoint, leave=Pause.IF_RESUMED)
    return endpoint


async def _first_server(endpoint: Endpoint) -> ServerAddress:
    """Return the server that is contacted first: Hugging Face's or SageMaker's API, or the endpoint itself."""
    if isinstance(endpoint, SageMakerEndpoint):
        async with endpoint.api() as api:
            return ServerAddress.of(api.calls.access.url("sagemaker"))
    if isinstance(endpoint, HuggingFaceEndpoint):
        return ServerAddress.of(api_url_of(endpoint.api_url))
    if isinstance(endpoint, HuggingFaceJobEndpoint | HuggingFaceSpaceEndpoint):
        return ServerAddress.of(hub_url())
    return ServerAddress.of(address(endpoint))
