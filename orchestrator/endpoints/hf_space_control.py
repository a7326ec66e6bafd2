"""The control plane of a Hugging Face Space: it is restarted, looked at by its stage, and paused.

A Space is a state by its stage; one that nobody knows does not run, and may cost money once we have restarted it:

    PAUSED, SLEEPING, an error, unknown -> restart -> BUILDING, APP_STARTING
      -> RUNNING: address, sleep time set and read back -> pause -> PAUSED
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

import anyio
from yarl import URL

from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import EndpointFailed, EndpointLost, EndpointRefused, EndpointSilent
from orchestrator.domain.policy import Backoff
from orchestrator.endpoints.api_calls import keeps_secrets
from orchestrator.endpoints.hf_calls import Declined, health_status
from orchestrator.endpoints.http import data_plane
from orchestrator.wires.failures import from_proxied_answer
from orchestrator.wires.huggingface import for_batches

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    import aiohttp

    from orchestrator.domain.policy import Policy
    from orchestrator.domain.terms import Terms
    from orchestrator.endpoints.hf_spaces_api import SpaceAddress, SpaceRuntime, Spaces
    from orchestrator.endpoints.http import HttpData
    from orchestrator.wires.wire import Wire

LOOK_EVERY = 4.0  # seconds
_RESTARTS = 3  # times that we try to restart a Space of which the API gives no answer
_ARMINGS = 4  # times that we try to set the sleep time
_BETWEEN_ARMINGS = Backoff(first=0.25, cap=2.0)
_FORBIDDEN = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})

_STATES = {
    "PAUSED": EndpointState.PAUSED,
    "STOPPED": EndpointState.PAUSED,
    "SLEEPING": EndpointState.SCALED_TO_ZERO,  # is not among the stages that `huggingface_hub` knows
    "BUILDING": EndpointState.STARTING,
    "APP_STARTING": EndpointState.STARTING,
    "RUNNING_BUILDING": EndpointState.STARTING,
    "RUNNING_APP_STARTING": EndpointState.STARTING,
    "RUNNING": EndpointState.AWAKE,
    "NO_APP_FILE": EndpointState.FAILED,
    "CONFIG_ERROR": EndpointState.FAILED,
    "BUILD_ERROR": EndpointState.FAILED,
    "RUNTIME_ERROR": EndpointState.FAILED,
    "DELETING": EndpointState.GONE,
}
_REMEDIES = {
    "NO_APP_FILE": "it has no app: add app.py or a Dockerfile to it",
    "CONFIG_ERROR": "correct the settings at the top of its README.md",
    "BUILD_ERROR": "`orchestrator endpoints logs {name}` shows why its build failed",
    "RUNTIME_ERROR": "`orchestrator endpoints logs {name}` shows why its app ended, and "
    "`orchestrator endpoints resume {name}` starts it again",
}
_UP = frozenset({EndpointState.STARTING, EndpointState.AWAKE})
_SERVE = frozenset({"RUNNING", "RUNNING_BUILDING", "RUNNING_APP_STARTING"})  # stages in which an app is running


@dataclass(frozen=True, slots=True)
class SpaceAccess:
    """The settings of a Space as an endpoint, the API of its owner's Spaces, and the session of health checks.

    `name`: the endpoint's. `space`: owner/name. `longest_sleep`: seconds, the longest sleep time that it may have; None
    leaves that alone.
    """

    name: str
    space: str
    terms: Terms
    spaces: Spaces
    probe: aiohttp.ClientSession
    hardware: str | None
    longest_sleep: int | None
    path: str
    health: str
    wire: Wire


class SpaceControl:
    """The control plane of one Space."""

    installing = False

    def __init__(self, access: SpaceAccess) -> None:
        self.terms = access.terms
        self.look_every = LOOK_EVERY
        self._access = access
        self._name = access.space.partition("/")[2]
        self._spaces = access.spaces
        self._shown: SpaceRuntime | None = None  # at the last look
        self._address: SpaceAddress | None = None  # since it was last woken
        self._silent: str | None = None  # why we could not connect the last time that we tried
        self._resumed = False
        self._left = False

    @property
    def status_text(self) -> str:
        """The provider's word for the stage, with the hardware, and what is wrong and to be done."""
        shown = self._shown
        if shown is None:
            return "not there"
        text = f"{shown.stage} on {shown.hardware}" if shown.hardware else shown.stage
        if _STATES.get(shown.stage) is EndpointState.FAILED:
            text += f": {shown.message or 'the provider does not say why'}"
            text += f"; {_REMEDIES[shown.stage].format(name=self._access.name)}"
        return f"{text}; {self._silent}" if self._silent else text

    async def state(self) -> EndpointState:
        """Look at the Space now, and at its address once its app is running.

        A stage that nobody knows is one in which it does not run: it is asleep until we have restarted it. Then, and
        after we have paused it, it may still cost money. One whose app has failed costs nothing once we have paused it.
        """
        self._shown = shown = await self._spaces.runtime(self._name)
        if shown is None:
            return EndpointState.GONE
        if shown.stage not in _SERVE:
            self._address = None
        elif self._address is None and not self._left:
            self._address = await self._spaces.address(self._name)
            if self._address.sdk == "static":
                raise EndpointFailed(f"endpoint {self._access.name} is a static Space, which has no server to ask")
        state = _STATES.get(shown.stage)
        if state is None:
            return EndpointState.STARTING if self._resumed or self._left else EndpointState.SCALED_TO_ZERO
        return EndpointState.PAUSED if state is EndpointState.FAILED and self._left else state

    async def price(self) -> float | None:
        """Return dollars per hour for its hardware."""
        hardware = self._access.hardware or (self._shown.hardware if self._shown is not None else "")
        return await self._spaces.price(hardware) if hardware else None

    async def resume(self) -> None:
        """Restart the Space unless it runs or starts, on the hardware that it needs, and confirm its sleep time.

        The sleep time is the last safeguard that ends the billing.
        """
        self._resumed = self._left = False
        self._silent = self._address = None
        state = await self.state()
        shown, wanted = self._shown, self._access.hardware
        if shown is None or state is EndpointState.GONE:
            raise EndpointFailed(f"there is no Space {self._access.space}: check its name, or create it")
        runs = state in _UP
        if wanted is not None and shown.hardware != wanted:
            if runs:
                raise EndpointFailed(
                    f"endpoint {self._access.name} is running on {shown.hardware}, not on {wanted}: pause it, and "
                    "run the same command again, or leave hardware= out"
                )
            shown = await self._spaces.request_hardware(self._name, wanted)
            runs = _STATES.get(shown.stage) in _UP
        self._resumed = True
        if not runs:
            await self._restart()
        await self._arm()

    async def answers(self) -> bool:
        """Whether the health route answers 200. Raises `EndpointRefused` if the token may not use it."""
        url = self._data_url(self._access.health)
        if url is None:
            return False
        status, self._silent = await health_status(self._access.probe, url, self._headers)
        if status in _FORBIDDEN:
            raise EndpointRefused(
                f"endpoint {self._access.name} answers {status} on its route {self._access.health}: the token "
                f"needs read access to {self._access.space}; if its app has a login of its own, remove that"
            )
        return status == HTTPStatus.OK

    async def pause(self, *, to_zero: bool = False) -> None:
        """Pause the Space. Nothing puts one to sleep at once, so `to_zero` pauses it too."""
        self._left, self._silent = True, None
        try:
            self._shown = await self._spaces.pause(self._name)
        except Declined as declined:
            if not (await self.state()).asleep:
                raise EndpointSilent(f"endpoint {self._access.name} cannot be paused yet: {declined}") from declined

    @asynccontextmanager
    async def connect(self, policy: Policy) -> AsyncIterator[HttpData]:
        """Open the data plane at the Space's URL and `path`."""
        url = self._data_url(self._access.path)
        if url is None:
            raise EndpointLost(f"endpoint {self._access.name} has no URL")
        wire = for_batches(self._access.wire, policy.batch_size)
        async with data_plane(url, self._headers, wire, policy, failure=from_proxied_answer) as data:
            yield data

    async def _restart(self) -> None:
        """Restart the Space. If the answer is lost, look whether it has been restarted before trying again."""
        failure: EndpointSilent | None = None
        for _ in range(_RESTARTS):
            try:
                self._shown = await self._spaces.restart(self._name)
            except EndpointSilent as lost:
                failure = lost
            else:
                return
            if await self.state() in _UP:
                return
        assert failure is not None
        raise failure

    async def _arm(self) -> None:
        """Set the sleep time, and read it back to confirm it. That of free hardware cannot be set."""
        longest, refusal = self._access.longest_sleep, ""
        if longest is None:
            return
        for attempt in range(_ARMINGS):
            await anyio.sleep(_BETWEEN_ARMINGS.delay(attempt, 0.0) if attempt else 0.0)
            shown = await self._spaces.runtime(self._name)
            if shown is None:
                raise EndpointFailed(f"the Space {self._access.space} was deleted while it was being restarted")
            if shown.free or (shown.sleep_seconds is not None and shown.sleep_seconds <= longest):
                return
            try:
                await self._spaces.set_sleep_time(self._name, longest)
            except Declined as declined:
                refusal = f" ({declined})"
        raise EndpointFailed(
            f"endpoint {self._access.name}: the Space's sleep time could not be set{refusal}; "
            "set sleep_time=None to go on without"
        )

    @property
    def _headers(self) -> Mapping[str, str]:
        """The headers of requests to the app: the token only if it needs one."""
        address = self._address
        return self._spaces.calls.token.headers if address is not None and address.private else {}

    def _data_url(self, route: str) -> URL | None:
        if self._address is None:
            return None
        url = URL(self._address.url + route)
        if not keeps_secrets(url):
            raise EndpointFailed(f"endpoint {self._access.name} is at {url}: no token is sent there unencrypted")
        return url
