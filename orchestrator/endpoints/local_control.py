"""The control plane of one worker: it starts the process, asks its health route, and ends it."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp
import anyio
import anyio.to_thread

from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.worker import CANNOT_SERVE
from orchestrator.endpoints.last_words import ending, reason
from orchestrator.endpoints.local_data import LocalData
from orchestrator.endpoints.vitals_files import vitals_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from anyio.abc import Process

    from orchestrator.domain.batching import Limits
    from orchestrator.domain.policy import Policy
    from orchestrator.domain.terms import Terms
    from orchestrator.endpoints.server_log import ServerLog
    from orchestrator.endpoints.worker_place import WorkerPlace

_GRACE = 5.0  # seconds for a health check, and from SIGTERM to SIGKILL
_EXIT_WAIT = 1.0  # seconds that we wait for a worker that broke a connection to end
_DEADLINE = 30.0  # seconds within which a killed process is gone, unless the kernel hangs
_OK = 200


@dataclass(frozen=True, slots=True)
class WorkerStart:
    """What a worker is started with, and how it may be asked.

    `command`: takes the file for the worker's status, and may read /proc/cpuinfo. `install_timeout`: None if there is
    nothing to install. `limits`: takes what the health route says. `bare`: labels are given without a list around them.
    """

    name: str
    model: str
    log: ServerLog
    command: Callable[[Path], list[str]]
    environment: Callable[[], dict[str, str]]
    install_timeout: float | None
    parameters: Mapping[str, object]
    limits: Callable[[Mapping[str, object], Policy], Limits]
    bare: bool


class LocalControl:
    """The control plane of one worker process."""

    terms: Terms | None = None  # the worker always ends with us
    look_every = 0.1

    def __init__(self, start: WorkerStart, place: WorkerPlace) -> None:
        self.name = start.name
        self._start = start
        self._place = place
        self._log_since = 0  # where this worker's output begins
        self._vitals = vitals_file(start.name, os.getpid())  # the worker writes it
        self._process: Process | None = None
        self._was_awake = False
        self._listens = False  # once it listens, its requirements are installed
        self._install_by = 0.0
        self._failure: str | None = None
        self.info: Mapping[str, object] = {}  # what the worker's health route says about the model

    @property
    def status_text(self) -> str:
        """What the worker is doing, or why it ended while loading."""
        if self._failure is not None:
            return self._failure
        if self._process is None:
            return "no worker is running"
        if self._was_awake:
            return "awake"
        return "installing requirements" if self.installing else "loading the model"

    @property
    def installing(self) -> bool:
        """Whether the worker may still be installing its requirements."""
        return self._start.install_timeout is not None and self._process is not None and not self._listens

    @property
    def runs(self) -> bool:
        """Whether the worker's process is running."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int | None:
        """The worker's process id, or None if there is no worker."""
        return None if self._process is None else self._process.pid

    async def resume(self) -> None:
        """Start the worker unless it is running."""
        if await self.state() in {EndpointState.STARTING, EndpointState.AWAKE}:
            return
        with anyio.CancelScope(shield=True):  # an interrupted start could leave a process behind
            await self.pause()  # a worker that died may have left something behind
            log, self._log_since = await anyio.to_thread.run_sync(
                self._start.log.begin, f"worker for {self._start.model}"
            )
            try:
                command = await anyio.to_thread.run_sync(self._start.command, self._vitals)
                with self._place.opened() as (arguments, descriptors):
                    self._process = await anyio.open_process(
                        [*command, *arguments],
                        stdin=subprocess.PIPE,  # the worker's lifeline: our side closes however we end
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        env={**self._start.environment(), **self._place.environment},
                        start_new_session=True,  # Ctrl-C must not reach the worker, which answers until we end it
                        pass_fds=descriptors,
                    )
            finally:
                os.close(log)
        if self._start.install_timeout is not None:
            self._install_by = anyio.current_time() + self._start.install_timeout

    async def state(self) -> EndpointState:
        """Check the process and its health route. FAILED means that it ended while loading."""
        if self._process is None:
            return EndpointState.PAUSED
        if self._process.returncode is not None:
            if self._was_awake:
                return EndpointState.PAUSED
            self._failure = self._failure or await self._last_words(self._process.returncode)
            return EndpointState.FAILED
        if self.installing and anyio.current_time() > self._install_by:
            await self.kill()  # this also ends the installer
            self._failure = (
                f"its requirements were not installed within {self._start.install_timeout:g} s: "
                "give them more time with install_timeout"
            )
            return EndpointState.FAILED
        try:
            async with self._place.session(_GRACE) as session, session.get("/health") as response:
                self._listens = True
                if response.status == _OK and not self._was_awake:
                    self.info = await response.json()
                    self._was_awake = True
        except TimeoutError:  # alive, but too busy to answer
            pass
        except aiohttp.ClientError:
            if self._was_awake:  # it no longer listens, though the process may not have ended yet
                return EndpointState.PAUSED
        return EndpointState.AWAKE if self._was_awake else EndpointState.STARTING

    async def price(self) -> None:
        """Return None: no price is published."""

    async def answers(self) -> bool:
        """Whether the worker has loaded its model."""
        return await self.state() is EndpointState.AWAKE

    async def pause(self, *, to_zero: bool = False) -> None:
        """End the worker and confirm that it is gone."""
        if self._process is None:
            return
        process = self._process
        with anyio.CancelScope(shield=True), anyio.fail_after(_DEADLINE):
            with anyio.move_on_after(_GRACE):
                await _end(process, signal.SIGTERM)
            await _end(process, signal.SIGKILL)
            if process.stdin is not None:
                await process.stdin.aclose()
            await anyio.Path(self._vitals).unlink(missing_ok=True)
        self._process, self._failure = None, None
        self._was_awake = self._listens = False

    @asynccontextmanager
    async def connect(self, policy: Policy) -> AsyncIterator[LocalData]:
        """Open the data plane. `policy.timeout` applies to each request, including its wait for the one before it."""
        start = self._start
        limits = start.limits(self.info, policy)
        async with self._place.session(policy.timeout) as session:
            yield LocalData(session, self, policy, limits, start.parameters, bare=start.bare, info=self.info)

    async def kill(self) -> None:
        """Kill the worker, for example because it hangs."""
        if self._process is not None:
            await _end(self._process, signal.SIGKILL)

    async def how_it_ended(self) -> str:
        """Say how a worker that broke a connection ended, with the last line of its log."""
        process = self._process
        if process is None:
            return "is gone"
        with anyio.move_on_after(_EXIT_WAIT):
            await process.wait()
        if process.returncode is None:
            return "broke the connection"
        why = reason(await anyio.to_thread.run_sync(self._start.log.tail, self._log_since))
        return f"{ending(process.returncode)}; its last words: {why}"

    async def _last_words(self, code: int) -> str:
        log = await anyio.to_thread.run_sync(self._start.log.tail, self._log_since)
        last = log.rstrip().rpartition("\n")[2]
        if last.startswith(CANNOT_SERVE):
            return last.removeprefix(CANNOT_SERVE)
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        memory = " (out of memory?)" if -code == signal.SIGKILL else ""
        return f"the worker {how}{memory} while loading the model; its last words: {last or 'none'}"


async def _end(process: Process, how: signal.Signals) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):  # it has just ended by itself
            process.send_signal(how)
        await process.wait()
