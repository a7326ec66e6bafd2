"""LocalServer: any server program on this machine. Resuming it starts one process per replica; pausing ends them."""

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
from orchestrator.wires.reask import refusal_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from orchestrator.domain.errors import RequestFailed
    from orchestrator.domain.policy import Policy
    from orchestrator.wires.wire import Wire

_PORT = "{port}"


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A server that we start and that always ends when we do. It must stay in the foreground; no shell is involved.

    `command`: its program and arguments. In it, in `url` and in `env`, `{port}` is a port that is free at each start,
    and `{port2}` is another one. `url`: where requests are sent. `health`: a route that answers 200 once the server is
    ready; None if accepting a connection is enough.
    `wire`: the request format. `model`: what is served, so that answers stay valid if the command changes; a folder or
    file counts by its content. Without it, the command identifies the answers.
    `env`: added to our own environment, which the server inherits; keep secrets here. `token_env`: the variable with
    the bearer token, if the server needs one.
    `replicas`: the number of processes, each with its own port. `gpus`: the GPUs that each of them sees, as in
    CUDA_VISIBLE_DEVICES: [[0, 1], [2, 3]]. It implies the number of replicas.
    `grace`: seconds from SIGTERM to SIGKILL.
    `name`: also names its log; by default the model's name, or the program's.
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
        words = [*self.command, *self.env.values()]
        if (_PORT in self.url) != any(_PORT in word for word in words):
            raise ValueError("{port} must be in both url and command (or env), or in neither")
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
        """Return the model (or the command) and the wire. Reads the model's files if `model` is a path."""
        model = list(self.command) if self.model is None else content_of(self.model)
        return {"kind": "local_server", "model": model, **self.wire_for(policy).identity}

    async def unsendable(self, request: bytes, policy: Policy) -> RequestFailed | None:
        """Return why the wire cannot send this request, or None if it can."""
        return await refusal_of(self.wire_for(policy), request)

    @asynccontextmanager
    async def control(self) -> AsyncIterator[Replica | MemberGroup[Replica]]:
        """Find the program. Raises `UsageError` if it or the token is missing. No server outlives the block."""
        headers = bearer(self.token_env, self.name)
        path = await to_thread.run_sync(program, self.command)
        if path is None:
            raise UsageError(
                f"endpoint {self.name}: there is no program {self.command[0]!r}; install it, or give its path"
            )
        count = self.replicas or 1
        replicas = [self.replica(number, path, headers) for number in range(1, count + 1)]
        control = replicas[0] if count == 1 else MemberGroup(replicas)
        try:
            yield control
        finally:
            with anyio.CancelScope(shield=True):
                await control.pause()

    def replica(self, number: int, program: str, headers: Mapping[str, str]) -> Replica:
        """Return the control plane of this replica, counted from 1. `program`: the path of the command's program."""
        return Replica(
            name=self.name if self.replicas == 1 else f"{self.name} replica {number}",
            command=[program, *self.command[1:]],
            address=self.url,
            health=self.health,
            environment=self._environment(number),
            headers=headers,
            log=self.log(number),
            grace=self.grace,
            wire_for=self.wire_for,
        )

    def log(self, replica: int = 1) -> ServerLog:
        """Return the log of this replica, counted from 1."""
        return ServerLog.of(self.name, replica)

    def _environment(self, number: int) -> dict[str, str]:
        pinned = {} if self.gpus is None else {"CUDA_VISIBLE_DEVICES": ",".join(map(str, self.gpus[number - 1]))}
        return {**os.environ, "PYTHONUNBUFFERED": "1", **pinned, **self.env}

    def wire_for(self, policy: Policy) -> Wire:
        """Return the wire for requests of this policy's size."""
        return for_batches(self.wire, policy.batch_size)
