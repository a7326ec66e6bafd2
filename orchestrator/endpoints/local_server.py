"""LocalServer: any server program on this machine. Waking starts it, as often as wanted; pausing ends it."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from orchestrator.domain.command_line import check_arguments
from orchestrator.domain.errors import UsageError
from orchestrator.endpoints.http import bearer, check_url
from orchestrator.endpoints.local_model import content_of
from orchestrator.endpoints.member_group import MemberGroup
from orchestrator.endpoints.replica import Replica, program
from orchestrator.endpoints.server_log import ServerLog
from orchestrator.wires.huggingface import HuggingFaceWire, for_batches

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from orchestrator.domain.policy import Policy
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
        check_arguments(self.command, "command", "['vllm', 'serve', ...]")
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
    async def control(self) -> AsyncIterator[Replica | MemberGroup[Replica]]:
        """Find the program: `UsageError` if there is none, or no token. Nothing runs when the block has ended."""
        headers = bearer(self.token_env, self.name)
        found = await to_thread.run_sync(program, self.command)
        if found is None:
            raise UsageError(
                f"endpoint {self.name}: there is no program {self.command[0]!r}; install it, or give its path"
            )
        count = self.replicas or 1
        replicas = [
            Replica(
                name=self.name if count == 1 else f"{self.name} replica {number}",
                command=[found, *self.command[1:]],
                address=self.url,
                health=self.health,
                environment=self._environment(number),
                headers=headers,
                log=self.log(number),
                grace=self.grace,
                wire_for=self._wire,
            )
            for number in range(1, count + 1)
        ]
        control = replicas[0] if count == 1 else MemberGroup(replicas)
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
