"""The management API of Hugging Face Inference Endpoints."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from orchestrator.domain.errors import EndpointFailed, OrchestratorError, UsageError
from orchestrator.endpoints.hf_calls import Declined, HfCalls, as_object, as_stream, as_text
from orchestrator.endpoints.hf_catalog import CatalogModel, catalog_url
from orchestrator.endpoints.hf_hardware import price_in
from orchestrator.endpoints.hf_spec import NAME, NAMESPACE, Description
from orchestrator.endpoints.hf_token import HF_TOKEN

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping

    import aiohttp

    from orchestrator.endpoints.api_calls import ApiTimeouts
    from orchestrator.endpoints.hf_catalog import Deployment
    from orchestrator.endpoints.hf_hardware import Hardware

_CONFLICTS = 3  # times that a change is tried again because another one is still in progress


class Management:
    """A client for the endpoints of one namespace. Its methods raise as `HfCalls.call` does."""

    def __init__(self, calls: HfCalls) -> None:
        self.calls = calls

    @property
    def namespace(self) -> str:
        """The namespace whose endpoints these are."""
        return self.calls.namespace

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        namespace: str | None = None,
        *,
        token_env: str = HF_TOKEN,
        api_url: str | None = None,
        timeouts: ApiTimeouts | None = None,
    ) -> AsyncIterator[Management]:
        """Find the token and open a session. The default namespace is the token owner's."""
        async with HfCalls.open(namespace, token_env=token_env, api_url=api_url, timeouts=timeouts) as calls:
            yield cls(calls)

    def of(self, namespace: str) -> Management:
        """Return a client for another namespace that shares this session."""
        return Management(self.calls.of(namespace))

    # -- looking ------------------------------------------------------------------------------------------------------

    async def get(self, name: str) -> Description | None:
        """Return the endpoint as it is now, or None if it does not exist."""
        try:
            return await self.calls.call("GET", self._url(name), self._described)
        except Declined as declined:
            if declined.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    async def list(self) -> tuple[Description, ...]:
        """Return every endpoint of the namespace, from all pages."""
        endpoints: tuple[Description, ...] = ()
        cursor, seen = "", set[str]()
        while cursor not in seen:
            seen.add(cursor)
            params = {"cursor": cursor} if cursor else {}
            page, cursor = await self.calls.call("GET", self._url(), self._listed, params=params)
            endpoints += page
            if not cursor:
                break
        return endpoints

    async def providers(self) -> Mapping[str, Any]:
        """Return vendors, regions and the hardware that they offer, with prices and quotas."""
        return await self.calls.call("GET", self._catalogue, as_object)

    async def catalog(
        self,
        *,
        accelerator: str | None = None,
        engine: str | None = None,
        license: str | None = None,  # noqa: A002 - the name that the API has for it
        task: str | None = None,
        search: str | None = None,
        limit: int | None = None,
    ) -> tuple[CatalogModel, ...]:
        """Return the models of the Inference Catalog that have these properties."""
        wanted = {"accelerator": accelerator, "engine": engine, "license": license, "task": task, "search": search}
        params = {key: value for key, value in wanted.items() if value is not None}
        params |= {} if limit is None else {"limit": str(limit)}
        return await self.calls.call("GET", f"{catalog_url()}/list", _catalogued, params=params)

    async def price(self, hardware: Hardware) -> float | None:
        """Return dollars per hour for one replica. Asks once; None if that fails or the price is not listed."""
        try:
            catalogue = await self.calls.call("GET", self._catalogue, as_object, tries=1)
        except OrchestratorError:
            return None
        return price_in(catalogue, hardware)

    async def open_metrics(self, name: str) -> str:
        """Return the content of the endpoint's OpenMetrics route."""
        return await self.calls.call("GET", self._url(name, "open-metrics"), as_text)

    async def logs(
        self, name: str, *, follow: bool = False, tail: int | None = None, replica: str | None = None
    ) -> AsyncGenerator[str, None]:
        """Yield the lines of the container's log; with `follow`, new ones too. To stop early, close it (`aclosing`)."""
        params = {"follow": "true"} if follow else {}
        params |= {} if tail is None else {"tail": str(tail)}
        params |= {} if replica is None else {"replica": replica}
        url = self._url(name, "logs")
        async with (
            await self.calls.call("GET", url, as_stream, params=params) as response,
            aclosing(self.calls.lines(response, url, None if follow else self.calls.timeouts.one)) as lines,
        ):
            async for line in lines:
                yield line

    # -- changing -----------------------------------------------------------------------------------------------------

    async def create(self, body: Mapping[str, Any]) -> Description:
        """Create an endpoint. If an earlier try of this call already created it, return that one."""
        model = body.get("model", {})
        password = model.get("image", {}).get("custom", {}).get("credentials", {}).get("password")
        self.calls.hide(*model.get("secrets", {}).values(), *([password] if password else []))
        return await self._new(body["name"], self.calls.call("POST", self._url(), self._described, body=body))

    async def deploy(self, name: str, wanted: Deployment) -> Description:
        """Create an endpoint from the Inference Catalog; as `create`."""
        self._url(name)  # refuses what is not a name
        body = wanted.body(self.namespace, name)
        try:
            return await self._new(name, self.calls.call("POST", wanted.url, self._deployed, body=body))
        except Declined as declined:
            if declined.status != HTTPStatus.NOT_FOUND:
                raise
            raise EndpointFailed(
                f"the catalog has no {wanted} that can be deployed so ({declined.said}): "
                "see `orchestrator endpoints catalog`"
            ) from declined

    async def _new(self, name: str, call: Awaitable[Description]) -> Description:
        try:
            return await call
        except Declined as declined:
            created = await self.get(name) if declined.conflict and declined.tries > 1 else None
            if created is None:
                raise
            return created

    async def update(self, name: str, changes: Mapping[str, Any]) -> Description:
        """Change these settings; a running endpoint rolls over to them."""
        return await self.calls.call("PUT", self._url(name), self._described, body=changes, conflicts=_CONFLICTS)

    async def resume(self, name: str) -> Description:
        """Resume the endpoint. Raises `Declined` (400 "already running") if it is not paused."""
        return await self.calls.call("POST", self._url(name, "resume"), self._described, conflicts=_CONFLICTS)

    async def pause(self, name: str) -> Description:
        """Pause the endpoint until it is resumed."""
        return await self.calls.call("POST", self._url(name, "pause"), self._described, conflicts=_CONFLICTS)

    async def scale_to_zero(self, name: str) -> Description:
        """Scale the endpoint to zero until the next request."""
        return await self.calls.call("POST", self._url(name, "scale-to-zero"), self._described, conflicts=_CONFLICTS)

    async def delete(self, name: str) -> None:
        """Delete the endpoint. This cannot be undone."""
        await self.calls.call("DELETE", self._url(name), as_text, conflicts=_CONFLICTS)

    @property
    def _catalogue(self) -> str:
        return f"{self.calls.api_url}/provider/{self.namespace}"

    def _url(self, *parts: str) -> str:
        if parts and not NAME.fullmatch(parts[0]):
            raise UsageError(f"{parts[0]!r} is not the name of an endpoint: lower-case letters, digits and dashes")
        if not NAMESPACE.fullmatch(self.namespace):
            raise UsageError(f"{self.namespace!r} is not the name of a Hugging Face account")
        return "/".join((self.calls.api_url, "endpoint", self.namespace, *parts))

    async def _described(self, response: aiohttp.ClientResponse) -> Description:
        return self._read(await as_object(response))

    async def _deployed(self, response: aiohttp.ClientResponse) -> Description:
        return self._read((await as_object(response)).get("endpoint"))

    async def _listed(self, response: aiohttp.ClientResponse) -> tuple[tuple[Description, ...], str]:
        page = await as_object(response)
        items = page.get("items")
        if not isinstance(items, list):
            raise ValueError("there is no list in it")
        return tuple(map(self._read, items)), str(page.get("nextCursor") or "")

    def _read(self, document: Any) -> Description:
        """Read an endpoint. Its message may repeat the container's output, which may contain our secrets."""
        described = Description.read(document)
        return replace(described, message=self.calls.secrets.hidden_in(described.message))


async def _catalogued(response: aiohttp.ClientResponse) -> tuple[CatalogModel, ...]:
    items = (await as_object(response)).get("items")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ValueError("there is no list in it")
    return tuple(map(CatalogModel.read, items))
