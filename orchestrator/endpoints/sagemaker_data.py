"""The data plane of SageMaker: InvokeEndpoint, signed, through our own HTTP client."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING

import aiohttp
from yarl import URL

from orchestrator.domain.proxies import proxy_for, proxy_headers
from orchestrator.domain.secrets import Secrets
from orchestrator.endpoints.bodies import beginning
from orchestrator.endpoints.http import HttpData
from orchestrator.endpoints.http_client import open_client
from orchestrator.wires.aiohttp_failures import why_not_connected
from orchestrator.wires.aws_failures import from_invocation, why_not_answering
from orchestrator.wires.wire import JSON_TYPE, Body

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from orchestrator.domain.http_client import Reply, Watch
    from orchestrator.domain.policy import Policy
    from orchestrator.endpoints.aws_access import AwsAccess
    from orchestrator.endpoints.http_client import HttpClient
    from orchestrator.wires.wire import Wire

_SERVICE = "sagemaker-runtime"
_MOST_OF_PROBE = 100_000  # bytes of an answer
_COMPONENT = "X-Amzn-SageMaker-Inference-Component"


@dataclass(frozen=True, slots=True)
class Invocation:
    """How one endpoint, or one of its components, is invoked."""

    access: AwsAccess
    endpoint: str
    component: str | None

    @property
    def url(self) -> str:
        """The URL of every request."""
        return f"{self.access.url(_SERVICE)}/endpoints/{self.endpoint}/invocations"

    async def signed(self, body: Body) -> _SignedBody:
        """Return the body with the headers that sign it."""
        headers = {"Content-Type": body.content_type}
        if self.component is not None:
            headers[_COMPONENT] = self.component
        signature = await self.access.signed(_SERVICE, body.method, self.url, body.content, headers)
        return _SignedBody(body.content, body.content_type, body.method, signature)

    async def why_silent(self, probe: aiohttp.ClientSession) -> str | None:
        """Send an empty object, and return why the container does not answer it, whatever it answers; None if it does.

        Raises `EndpointRefused` if AWS refuses the credentials or they may not invoke the endpoint.
        """
        body = await self.signed(Body(b"{}"))
        proxy = proxy_for(self.url, os.environ)
        try:
            async with probe.post(
                self.url, data=body.content, headers=body.headers, allow_redirects=False, proxy=proxy
            ) as response:
                content, _ = await beginning(response, _MOST_OF_PROBE)
        except TimeoutError:
            return "no answer to a probe"
        except (aiohttp.ClientError, OSError) as error:
            return why_not_connected(error) or f"a probe fails ({type(error).__name__})"
        hidden = self.access.hidden_in(content.decode(errors="replace")).encode()
        return why_not_answering(self.url, response.status, response.headers, hidden)


@dataclass(frozen=True, slots=True)
class _SignedBody(Body):
    signature: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def headers(self) -> dict[str, str]:
        return dict(self.signature)


class _SigningClient:
    """An `HttpClient` that signs every request, and hides the credentials in what AWS says if it refuses one."""

    def __init__(self, client: HttpClient, invocation: Invocation) -> None:
        self._client = client
        self._invocation = invocation

    async def send(self, url: str, body: Body, most: int, most_of_error: int, watch: Watch | None = None) -> Reply:
        reply = await self._client.send(url, await self._invocation.signed(body), most, most_of_error, watch)
        if reply.status == HTTPStatus.OK:
            return reply
        said = self._invocation.access.hidden_in(reply.content.decode(errors="replace"))
        return replace(reply, content=said.encode())


class SageMakerData(HttpData):
    """The data plane of an endpoint behind InvokeEndpoint, which has one route: no `/info`, `/metrics` or streams."""

    streams = False

    async def metrics(self) -> None:
        """Return None: the container's metrics are not reachable."""


@asynccontextmanager
async def sagemaker_data(invocation: Invocation, wire: Wire, policy: Policy) -> AsyncIterator[SageMakerData]:
    """Open the data plane. The wire's own route is left out, as every container answers at one."""
    url = invocation.url
    proxy = proxy_for(url, os.environ)
    async with open_client(url, {"Content-Type": JSON_TYPE}, proxy, policy) as client:
        secrets = Secrets.within(proxy_headers(proxy))
        signing = _SigningClient(client, invocation)
        yield SageMakerData(signing, URL(url), wire, policy, from_invocation, secrets)
