"""LocalServer: any server program on this machine. Waking starts it, as often as wanted; pausing ends it."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import UsageError
from orchestrator.endpoints.balanced import balanced
from orchestrator.endpoints.http import bearer, check_url
from orchestrator.endpoints.local_model import content_of
from orchestrator.endpoints.replica import Replica, program
from orchestrator.endpoints.server_log import ServerLog
from orchestrator.wires.huggingface import HuggingFaceWire
from orchestrator.wires.kinds import for_batches

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from orchestrator.domain.policy import Policy
    from orchestrator.domain.terms import Terms
    from orchestrator.endpoints.balanced import BalancedData
    from orchestrator.wires.wire import Wire

_PORT = "{port}"


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A server that we start, and that ends with us however we end. It stays in the foreground; no shell is involved.

    `command`: its program and arguments. `{port}` in it, in `url` and in `env` is a port that is free at each start;
    `{port2}` is another one. `url`: where it is asked. `health`: a route that answers 200 once it is ready; None:
    accepting a connection is enough.
    `wire`: the format that is spoken. `model`: what is served, so that answers stay valid whatever the command says; a
    folder or file counts by its content. Without it, answers are this command's.
    `env`: added to our own environment, which it inherits; secrets belong there. `token_env`: the variable with the
    bearer token, where it wants one.
    `replicas`: as many processes, each with its own port. `gpus`: what each of them sees of the GPUs, as
    CUDA_VISIBLE_DEVICES: [[0, 1], [2, 3]]; there are as many replicas then.
    `grace`: seconds from the request to end to the end by force.
    `name`: names its log, too; by default the model's, or the program's.
    """

    command: Sequence[str]
    url: str = f"http://127.0.0.1:{_PORT}"
    _: KW_ONLY
    health: str | None = "/health"
    wire: Wire = field(default_factory=HuggingFaceWire)
    model: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    token_env: str | None = None
    replicas: int | None = None
    gpus: Sequence[Sequence[int | str]] | None = None
    startup_timeout: float = 1800.0
    grace: float = 10.0
    name: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.command, str) or not self.command or not all(isinstance(word, str) for word in self.command):
            raise ValueError(f"command must be a list of arguments like ['vllm', 'serve', ...], not {self.command!r}")
        check_url(self.url.replace(_PORT, "1"))
        given = [*self.command, *self.env.values()]
        if (_PORT in self.url) != any(_PORT in word for word in given):
            raise ValueError("where {port} stands in url, it stands in command or env, and the other way round")
        count = self.replicas if self.replicas is not None else len(self.gpus or [()])
        if count < 1 or (self.gpus is not None and len(self.gpus) != count):
            raise ValueError("replicas must be at least 1, and gpus a list with one list for each replica")
        if count > 1 and _PORT not in self.url:
            raise ValueError("several replicas need a port each: write {port} in command and url")
        for name, least in (("startup_timeout", 0.001), ("grace", 0.0)):
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} must be a number of seconds of at least {least:g}")
        object.__setattr__(self, "replicas", count)
        object.__setattr__(self, "name", self.name or f"local:{Path(self.model or self.command[0]).name}")

    def identity(self, policy: Policy) -> Mapping[str, object]:
        """Model (or the command) and wire. Reads the model's files, where it names any."""
        model = list(self.command) if self.model is None else content_of(self.model)
        return {"kind": "local_server", "model": model, **self._wire(policy).identity}

    @asynccontextmanager
    async def control(self) -> AsyncIterator[LocalServerControl]:
        """Find the program: `UsageError` where there is none, or no token. Nothing runs when the block ends."""
        headers = bearer(self.token_env, self.name)
        found = await to_thread.run_sync(program, self.command)
        if found is None:
            raise UsageError(
                f"endpoint {self.name}: there is no program {self.command[0]!r}; install it, or give its path"
            )
        replicas = [
            Replica(
                [found, *self.command[1:]],
                self.url,
                self.health,
                self._environment(number),
                headers,
                self.log(number),
                self.grace,
            )
            for number in range(1, (self.replicas or 1) + 1)
        ]
        control = LocalServerControl(replicas, partial(self._connected, replicas, headers))
        try:
            yield control
        finally:
            with anyio.CancelScope(shield=True):
                await control.pause()

    def log(self, replica: int = 1) -> ServerLog:
        """What this replica writes, counted from 1."""
        return ServerLog.of(self.name, replica)

    def _environment(self, number: int) -> dict[str, str]:
        pinned = {} if self.gpus is None else {"CUDA_VISIBLE_DEVICES": ",".join(map(str, self.gpus[number - 1]))}
        return {**os.environ, "PYTHONUNBUFFERED": "1", **pinned, **self.env}

    def _wire(self, policy: Policy) -> Wire:
        return for_batches(self.wire, policy.batch_size)

    @asynccontextmanager
    async def _connected(
        self, replicas: Sequence[Replica], headers: Mapping[str, str], policy: Policy
    ) -> AsyncIterator[BalancedData]:
        async with balanced(self.name, replicas, self._wire(policy), headers, policy) as data:
            yield data


class LocalServerControl:
    """The processes of one server.

    It is awake for the first time once all of them are, so that one that cannot start is told at once; from then on,
    while any of them is: what died is started again meanwhile.
    """

    terms: Terms | None = None  # it ends with us, however we end
    installing = False
    look_every = 0.25

    def __init__(
        self, replicas: Sequence[Replica], connect: Callable[[Policy], AbstractAsyncContextManager[BalancedData]]
    ) -> None:
        self.replicas = replicas
        self._connect = connect
        self._were_awake = False

    @property
    def said(self) -> str:
        """What the server is at, in the last line that it wrote; the reason, where it has ended."""
        if len(self.replicas) == 1:
            return self.replicas[0].said
        awake = sum(replica.state is EndpointState.AWAKE for replica in self.replicas)
        worst = min(self.replicas, key=lambda replica: _GOODNESS.index(replica.state))
        rest = f"; replica {self.replicas.index(worst) + 1}: {worst.said}" if awake < len(self.replicas) else ""
        return f"{awake} of {len(self.replicas)} replicas awake{rest}"

    async def resume(self) -> None:
        """Start every replica that does not run."""
        for replica in self.replicas:
            if await replica.look() not in {EndpointState.STARTING, EndpointState.AWAKE}:
                await replica.start()

    async def state(self) -> EndpointState:
        """Look at all processes, and ask them."""
        async with anyio.create_task_group() as looks:
            for replica in self.replicas:
                looks.start_soon(replica.look)
        states = {replica.state for replica in self.replicas}
        if states == {EndpointState.AWAKE} or (self._were_awake and EndpointState.AWAKE in states):
            self._were_awake = True
            return EndpointState.AWAKE
        order = (EndpointState.PAUSED, EndpointState.STARTING) if self._were_awake else _GOODNESS
        return next((state for state in order if state in states), EndpointState.FAILED)

    async def price(self) -> None:
        """Nobody publishes one."""

    async def answers(self) -> bool:
        """Whether a health route says 200."""
        return await self.state() is EndpointState.AWAKE

    async def pause(self, *, to_zero: bool = False) -> None:  # noqa: ARG002 - no request could wake it
        """End every replica with all that it has started, and see it gone."""
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as endings:
                for replica in self.replicas:
                    endings.start_soon(replica.end)
        self._were_awake = False

    async def restart(self) -> None:
        """End every replica, so that it is started anew."""
        await self.pause()

    @asynccontextmanager
    async def connect(self, policy: Policy) -> AsyncIterator[BalancedData]:
        """Open the data plane of those that are awake."""
        async with self._connect(policy) as data:
            yield data


_GOODNESS = (EndpointState.FAILED, EndpointState.PAUSED, EndpointState.STARTING, EndpointState.AWAKE)
