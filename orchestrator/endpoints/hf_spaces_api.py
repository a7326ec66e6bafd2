"""The API of Hugging Face Spaces: the runtime of a Space, its address, its hardware and its sleep time.

Source of the protocol: `huggingface_hub` 2.4 (`get_space_runtime`, `pause_space`, `restart_space`, `space_info`,
`request_space_hardware`, `set_space_sleep_time`, `list_spaces_hardware`, `fetch_space_logs`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from orchestrator.domain.errors import EndpointRefused, OrchestratorError
from orchestrator.endpoints.hf_calls import Declined, as_list, as_object, hub_url
from orchestrator.endpoints.hf_jobs_api import events_of, price_per_hour

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import aiohttp

    from orchestrator.endpoints.hf_calls import HfCalls

SCOPE = "repo.write"
FREE = frozenset({"cpu-basic", "zero-a10g"})  # hardware that nobody is billed for, and whose sleep time is fixed
_BUILD_STAGES = frozenset({"BUILDING", "BUILD_ERROR", "CONFIG_ERROR", "NO_APP_FILE"})  # in which no app has a log


@dataclass(frozen=True, slots=True)
class SpaceRuntime:
    """What runs a Space, as the API reports it. `message`: why it is in its stage.

    `hardware`: what it runs on, or will run on if it does not run. `sleep_seconds`: the seconds without a request after
    which it goes to sleep; None: never.
    """

    stage: str
    message: str
    hardware: str
    sleep_seconds: int | None

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> SpaceRuntime:
        """Read a runtime. Raises `ValueError` if it has no stage."""
        stage, hardware, sleep = (document.get(name) for name in ("stage", "hardware", "gcTimeout"))
        if not isinstance(stage, str):
            raise ValueError("there is no stage in it")
        named = hardware if isinstance(hardware, Mapping) else {}
        return cls(
            stage=stage,
            message=str(document.get("errorMessage") or ""),
            hardware=str(named.get("requested") or named.get("current") or ""),
            sleep_seconds=sleep if isinstance(sleep, int) and sleep > 0 else None,
        )

    @property
    def free(self) -> bool:
        """Whether its hardware costs nothing."""
        return self.hardware in FREE

    @property
    def building(self) -> bool:
        """Whether there is no app yet, only what is said while it is built."""
        return self.stage in _BUILD_STAGES


@dataclass(frozen=True, slots=True)
class SpaceAddress:
    """Where a Space answers. `private`: whether it answers only with a token that may read it."""

    url: str
    private: bool
    sdk: str

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> SpaceAddress:
        """Read a Space. Raises `ValueError` if it has no host."""
        if not isinstance(document.get("host"), str):
            raise ValueError("there is no host in it")
        return cls(document["host"].rstrip("/"), document.get("private") is not False, str(document.get("sdk") or ""))


class Spaces:
    """The Spaces of one namespace. Its methods raise as `HfCalls.call` does."""

    def __init__(self, calls: HfCalls) -> None:
        self.calls = calls
        self._offers: Sequence[Mapping[str, Any]] | None = None

    async def runtime(self, name: str) -> SpaceRuntime | None:
        """Return what runs a Space now; None if there is no such Space."""
        try:
            return await self.calls.call("GET", self._url(name, "runtime"), self._runtime)
        except Declined as declined:
            if declined.status != HTTPStatus.NOT_FOUND:
                raise
            return None

    async def address(self, name: str) -> SpaceAddress:
        """Return where a Space answers."""
        return await self.calls.call("GET", self._url(name), _address)

    async def check_permission(self, name: str) -> None:
        """Raise `EndpointRefused` if the token may not restart and pause the Space, as far as the Hub says."""
        account = await self.calls.call("GET", f"{hub_url()}/api/whoami-v2", as_object)
        if missing := missing_permission(account, self.calls.namespace, name):
            raise EndpointRefused(f"{self.calls.token.source} {missing}; {self.calls.token.remedy}")

    async def pause(self, name: str) -> SpaceRuntime:
        """Pause a Space until somebody restarts it."""
        return await self.calls.call("POST", self._url(name, "pause"), self._runtime)

    async def restart(self, name: str) -> SpaceRuntime:
        """Restart a Space, once: if the answer is lost, raises `EndpointSilent`, and it may have been restarted."""
        return await self.calls.call("POST", self._url(name, "restart"), self._runtime, tries=1)

    async def request_hardware(self, name: str, hardware: str) -> SpaceRuntime:
        """Have a Space run on other hardware from now on."""
        return await self.calls.call("POST", self._url(name, "hardware"), self._runtime, body={"flavor": hardware})

    async def set_sleep_time(self, name: str, seconds: int) -> SpaceRuntime:
        """Set the seconds without a request after which a Space goes to sleep."""
        return await self.calls.call("POST", self._url(name, "sleeptime"), self._runtime, body={"seconds": seconds})

    async def price(self, hardware: str) -> float | None:
        """Return dollars per hour for this hardware. None if the list is not to be had, or lacks it."""
        if self._offers is None:
            try:
                self._offers = await self.calls.call("GET", f"{hub_url()}/api/spaces/hardware", as_list, tries=3)
            except OrchestratorError:
                return None
        return price_per_hour(self._offers, hardware)

    async def billed(self) -> Sequence[tuple[str, SpaceRuntime]]:
        """Return the Spaces of the namespace whose hardware is billed while they run, with their whole names."""
        params = {"author": self.calls.namespace, "expand": "runtime"}
        found = await self.calls.call("GET", f"{hub_url()}/api/spaces", as_list, params=params)
        read = [
            (str(space.get("id")), SpaceRuntime.read(space["runtime"]))
            for space in found
            if isinstance(space.get("runtime"), Mapping) and isinstance(space["runtime"].get("stage"), str)
        ]
        return [(name, runtime) for name, runtime in read if runtime.hardware and not runtime.free]

    def events(self, name: str, route: str, *, follow: bool = False) -> AsyncGenerator[Mapping[str, Any], None]:
        """Yield what a Space's `logs/run`, `logs/build` or `metrics` hold; with `follow`, until it ends."""
        return events_of(self.calls, self._url(name, route), follow=follow)

    def _url(self, *parts: str) -> str:
        return "/".join((hub_url(), "api", "spaces", self.calls.namespace, *parts))

    async def _runtime(self, response: aiohttp.ClientResponse) -> SpaceRuntime:
        """Read a runtime. Its message may repeat the app's output, which may contain our token."""
        runtime = SpaceRuntime.read(await as_object(response))
        return replace(runtime, message=self.calls.secrets.hidden_in(runtime.message))


def missing_permission(account: Mapping[str, Any], owner: str, name: str) -> str | None:
    """Return what a token lacks to restart and pause a Space, in words; None if nothing is known to be missing.

    `account`: what the Hub says about the token (`whoami-v2`).
    """
    organizations = {entry.get("name"): entry for entry in _objects(account.get("orgs"))}
    user = account.get("name")
    if owner not in {user, *organizations}:
        return f"belongs to {user}, who is no member of {owner}: only its owner may restart and pause a Space"
    if organizations.get(owner, {}).get("roleInOrg") == "read":
        return f"belongs to {user}, whose role in {owner} is read: restarting and pausing a Space needs the role write"
    authentication = account.get("auth")
    token = authentication.get("accessToken") if isinstance(authentication, Mapping) else None
    return _missing_scope(token, owner, name) if isinstance(token, Mapping) else None


def _missing_scope(token: Mapping[str, Any], owner: str, name: str) -> str | None:
    if token.get("role") == "read":
        return f"holds a token that may only read: it needs the role write, or the scope {SCOPE} on {owner}"
    allowed = token.get("fineGrained")
    if token.get("role") != "fineGrained" or not isinstance(allowed, Mapping):
        return None
    for entry in _objects(allowed.get("scoped")):
        entity = entry.get("entity")
        whose = entity.get("name") if isinstance(entity, Mapping) else None
        if whose in {owner, f"{owner}/{name}", f"spaces/{owner}/{name}"} and SCOPE in (entry.get("permissions") or ()):
            return None
    return f"holds a token without the scope {SCOPE} on {owner}"


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


async def _address(response: aiohttp.ClientResponse) -> SpaceAddress:
    return SpaceAddress.read(await as_object(response))
