"""awake: wake an endpoint, lend its data plane, and put it back to sleep however the block ends."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import EndpointFailed, PauseUnconfirmed, RunStopped
from orchestrator.engine.progress import Phase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orchestrator.domain.policy import Policy
    from orchestrator.engine.progress import Progress
    from orchestrator.ports import ControlPlane, DataPlane, Endpoint

POLL = 0.1  # seconds between two looks at the endpoint
PAUSE_DEADLINE = 60.0  # seconds from the first request to pause until it must have been seen paused


class Awake:
    """An endpoint inside its `awake` block."""

    def __init__(self, endpoint: Endpoint, control: ControlPlane, progress: Progress) -> None:
        self._endpoint = endpoint
        self._control = control
        self._progress = progress

    @asynccontextmanager
    async def connect(self, policy: Policy) -> AsyncIterator[DataPlane]:
        """Wake the endpoint if it is not awake and open its data plane: again after it was lost, too."""
        self._progress.phase = Phase.WAKE
        await self._wake()
        self._progress.phase = Phase.WORK
        async with self._control.connect(policy) as model:
            yield model

    async def _wake(self) -> None:
        state = await self._control.state()
        with anyio.move_on_after(self._endpoint.startup_timeout):
            if state is EndpointState.PAUSED:
                await self._control.resume()
            while (state := await self._control.state()) is EndpointState.STARTING:
                await anyio.sleep(POLL)
        if state is EndpointState.STARTING:
            raise RunStopped(
                f"endpoint {self._endpoint.name} was not awake within {self._endpoint.startup_timeout:g} s; "
                "run the same command again to continue, or raise its startup_timeout"
            )
        if state is not EndpointState.AWAKE:
            raise EndpointFailed(f"endpoint {self._endpoint.name} did not wake up: it is {state}")


@asynccontextmanager
async def awake(endpoint: Endpoint, progress: Progress) -> AsyncIterator[Awake]:
    """Lend an endpoint; nothing is woken until it is used. However the block ends, the endpoint is seen paused."""
    async with endpoint.control() as control:
        try:
            yield Awake(endpoint, control, progress)
        finally:
            progress.phase = Phase.PAUSE
            with anyio.CancelScope(shield=True):
                await _put_to_sleep(endpoint, control)


async def _put_to_sleep(endpoint: Endpoint, control: ControlPlane) -> None:
    """Seen paused, not merely asked; with a deadline."""
    with anyio.move_on_after(PAUSE_DEADLINE):
        await control.pause()
        while await control.state() is not EndpointState.PAUSED:
            await anyio.sleep(POLL)
        return
    raise PauseUnconfirmed(
        f"endpoint {endpoint.name} was asked to pause and was not seen paused within {PAUSE_DEADLINE:g} s: "
        "it may still cost money; look at it now"
    )
