"""HuggingFaceJobEndpoint: a model server that runs as a Hugging Face Job, and bills until the job ends."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, Self

import aiohttp
from yarl import URL

from orchestrator.domain.command_line import check_arguments
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import EndpointFailed, EndpointLost, EndpointRefused, EndpointSilent, UsageError
from orchestrator.domain.moment import seconds_of
from orchestrator.domain.terms import Pause, Terms
from orchestrator.domain.urls import names_key
from orchestrator.endpoints.hf_calls import Calls, Declined, health_status, keeps_secrets
from orchestrator.endpoints.hf_jobs_api import SCOPE, Jobs
from orchestrator.endpoints.hf_spec import NAME, NAMESPACE
from orchestrator.endpoints.hf_token import HF_TOKEN
from orchestrator.endpoints.http import data_plane
from orchestrator.wires.failures import from_answer
from orchestrator.wires.huggingface import HuggingFaceWire, for_batches
from orchestrator.wires.openai import OpenAIChatWire
from orchestrator.wires.reask import refusal_of
from orchestrator.wires.tei import TeiWire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from orchestrator.domain.errors import RequestFailed
    from orchestrator.domain.policy import Policy
    from orchestrator.endpoints.hf_jobs_api import JobDescription
    from orchestrator.endpoints.http import HttpData
    from orchestrator.wires.failures import Failure
    from orchestrator.wires.wire import Wire

_PROBE_TIMEOUT = 5.0
_CREATIONS = 3  # times that we try to create a job of which the API gives no answer
_NOT_READY = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE})
_FORBIDDEN = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


@dataclass(frozen=True, slots=True)
class HuggingFaceJobEndpoint:
    """A model server as a Hugging Face Job with an exposed port: created for a run, and cancelled after it.

    `name`: NAME or namespace/NAME. It is the job's label, by which any process finds the job again. Without a
    namespace, that of the token's owner is used.
    `image`, `command`: the container and the server in it, which must listen on 0.0.0.0 at `port`. `flavor`: the
    hardware, as in `hf jobs hardware`.
    `timeout`: how long one job may run at most: "90m", "4h". The provider ends it then, whatever has become of us. If
    the run still has work, the next job takes its place.
    `volumes`: as the API takes them: {"type": "model", "source": "acme/m", "mountPath": "/model"}.
    `env`: variables of the container. `secrets`: names of environment variables here whose values it gets as secrets.
    `health`: a route that answers 200 once the server is ready. `wire`: the request format.
    `model`: what is served, so that answers stay valid if image, command or hardware change.
    `token_env`, `startup_timeout`, `pause`, `linger`: as in `HuggingFaceEndpoint`. `price_per_hour`: looked up by
    default.
    """

    name: str
    _: KW_ONLY
    image: str = ""
    command: Sequence[str] = ()
    flavor: str = ""
    timeout: str = "4h"
    volumes: Sequence[Mapping[str, object]] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Sequence[str] = ()
    port: int = 8000
    health: str = "/health"
    wire: Wire = field(default_factory=HuggingFaceWire)
    model: str | None = None
    token_env: str = HF_TOKEN
    startup_timeout: float = 1800.0
    pause: Pause | Literal["if_resumed", "always", "never"] = Pause.IF_RESUMED
    linger: float = 0.0
    price_per_hour: float | None = None

    def __post_init__(self) -> None:
        namespace, slash, name = self.name.rpartition("/")
        if not NAME.fullmatch(name) or (slash and not NAMESPACE.fullmatch(namespace)):
            raise ValueError(
                f"a job's endpoint is named NAME or NAMESPACE/NAME, in lower-case letters, digits and dashes, not "
                f"{self.name!r}"
            )
        seconds_of(self.timeout)
        if self.command:
            check_arguments(self.command, "command", "['vllm', 'serve', ...]")
        if not 0 < self.port < 65536:
            raise ValueError(f"port must be from 1 to 65535, not {self.port}")
        if not self.health.startswith("/"):
            raise ValueError(f"health must begin with /, not {self.health!r}")
        if self.pause not in set(Pause) - {Pause.SCALE_TO_ZERO}:
            raise ValueError(f"pause must be if_resumed, always or never, not {self.pause!r}")
        if secret := next((variable for variable in self.env if names_key(variable)), None):
            raise ValueError(f"env[{secret!r}] may hold a secret, which would be stored: name it in secrets= instead")

    @classmethod
    def vllm(cls, name: str, model: str, *, flavor: str, arguments: Sequence[str] = (), **settings: Any) -> Self:
        """Return an endpoint that serves a model of the Hub with vLLM. `settings`: any other field."""
        command = ["vllm", "serve", model, "--host", "0.0.0.0", "--port", "8000", *arguments]  # noqa: S104 - in its container
        usual: dict[str, Any] = {"image": "vllm/vllm-openai:latest", "wire": OpenAIChatWire(model), "model": model}
        return cls(name, command=command, flavor=flavor, **usual | settings)

    @classmethod
    def sglang(cls, name: str, model: str, *, flavor: str, arguments: Sequence[str] = (), **settings: Any) -> Self:
        """Return an endpoint that serves a model of the Hub with SGLang. `settings`: any other field."""
        program = ["python3", "-m", "sglang.launch_server", "--model-path", model, "--served-model-name", model]
        command = [*program, "--host", "0.0.0.0", "--port", "8000", *arguments]  # noqa: S104 - in its container
        usual: dict[str, Any] = {"image": "lmsysorg/sglang:latest", "wire": OpenAIChatWire(model), "model": model}
        return cls(name, command=command, flavor=flavor, **usual | settings)

    @classmethod
    def tei(cls, name: str, model: str, *, flavor: str, arguments: Sequence[str] = (), **settings: Any) -> Self:
        """Return an endpoint that serves an embedding model of the Hub with TEI. `settings`: any other field."""
        where = ["--hostname", "0.0.0.0", "--port", "8000"]  # noqa: S104 - in its container
        command = ["text-embeddings-router", "--model-id", model, *where, *arguments]
        image = "ghcr.io/huggingface/text-embeddings-inference:latest"
        usual: dict[str, Any] = {"image": image, "wire": TeiWire("embed"), "model": model}
        return cls(name, command=command, flavor=flavor, **usual | settings)

    def identity(self, policy: Policy) -> Mapping[str, object]:
        """Return the model (or the image and the command) and the wire. Sends nothing."""
        if not self.image or not self.command or not self.flavor:
            raise UsageError(f"endpoint {self.name} cannot be started: set image=, command= and flavor=")
        model = self.model or [self.image, *self.command]
        return {"kind": "huggingface_job", "model": model, **for_batches(self.wire, policy.batch_size).identity}

    async def unsendable(self, request: bytes, policy: Policy) -> RequestFailed | None:
        """Return why the wire cannot send this request, or None if it can."""
        return await refusal_of(for_batches(self.wire, policy.batch_size), request)

    @asynccontextmanager
    async def control(self) -> AsyncIterator[HuggingFaceJobControl]:
        """Find the token and the namespace, and open the sessions.

        Raises `UsageError` if there is no token, or if a secret is not in the environment.
        """
        values = {name: os.environ.get(name) for name in self.secrets}
        if missing := next((name for name, value in values.items() if not value), None):
            raise UsageError(f"endpoint {self.name}: set the environment variable {missing}, which secrets= names")
        namespace = self.name.rpartition("/")[0] or None
        timeout = aiohttp.ClientTimeout(total=_PROBE_TIMEOUT)
        async with (
            Calls.open(namespace, token_env=self.token_env, scope=SCOPE) as calls,
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), timeout=timeout) as probe,
        ):
            secrets = {name: value for name, value in values.items() if value}
            calls.hide(*secrets.values())
            yield HuggingFaceJobControl(self, calls, probe, secrets)


class HuggingFaceJobControl:
    """The control plane: creates the job, finds it by its label, and cancels it.

    There should be one job at a time. If the answer to a creation was lost, there may be two; the first one counts, and
    the others are cancelled at the next resume or pause.
    """

    installing = False
    look_every = 4.0

    def __init__(
        self, endpoint: HuggingFaceJobEndpoint, calls: Calls, probe: aiohttp.ClientSession, secrets: Mapping[str, str]
    ) -> None:
        name = endpoint.name.rpartition("/")[2]
        self._endpoint = endpoint
        self._jobs = Jobs(calls, name)
        self._token = calls.token
        self._probe = probe
        self._secrets = secrets
        self._job: JobDescription | None = None  # at the last look
        self._silent: str | None = None  # why it did not answer the last time that we asked
        self._answered = False  # since the last resume
        self._left = False
        kept = {"kind": "huggingface_job", "name": f"{calls.namespace}/{name}"}
        self.terms = Terms(
            endpoint=kept["name"],
            pause_with=kept | ({"token_env": endpoint.token_env} if endpoint.token_env != HF_TOKEN else {}),
            pause=Pause(endpoint.pause),
            linger=endpoint.linger,
            price_per_hour=endpoint.price_per_hour,
        )

    @property
    def status_text(self) -> str:
        """The job's number and stage in the provider's words, for how long it ran, and why it is silent."""
        job = self._job
        if job is None:
            return "no job"
        ran = "" if job.seconds is None else f", running for {job.seconds} s"
        if job.ended:
            ran = "" if job.seconds is None else f" after running for {job.seconds} s"
        why = f": {job.message}" if job.message else ""
        return f"job {job.id} {job.stage}{ran}{why}" + (f"; {self._silent}" if self._silent else "")

    async def state(self) -> EndpointState:
        """Look for the job now.

        A job that ends by itself before it has answered has failed. One that ends later, as at its timeout, is asleep
        as if a timer of the provider had ended it, and the next one takes its place. One that somebody has cancelled is
        paused.
        """
        alive = await self._jobs.alive()
        if alive:
            self._job = alive[0]
            return EndpointState.AWAKE if self._job.stage == "RUNNING" else EndpointState.STARTING
        self._silent = None
        if self._job is not None and not self._job.ended:
            self._job = await self._jobs.get(self._job.id)
        if self._job is None or self._left or not self._job.ended_by_itself:
            return EndpointState.PAUSED
        return EndpointState.SCALED_TO_ZERO if self._answered else EndpointState.FAILED

    async def price(self) -> float | None:
        """Return dollars per hour for its hardware, exposed port included."""
        return await self._jobs.price(self._endpoint.flavor) if self._endpoint.flavor else None

    async def resume(self) -> None:
        """Create the job, unless there is one. If the answer is lost, look for the job before creating another one."""
        self._left = self._answered = False
        spec = self._spec()
        failure: EndpointSilent | None = None
        for _ in range(_CREATIONS):
            if await self._keep_first():
                return
            try:
                self._job = await self._jobs.run(spec)
            except EndpointSilent as lost:
                failure = lost
            else:
                if failure is not None:  # the job whose answer was lost may be listed only now
                    await self._keep_first()
                return
        assert failure is not None
        raise failure

    async def _keep_first(self) -> bool:
        """Take the first of the jobs that are alive, and cancel the others; return whether there is one."""
        alive = await self._jobs.alive()
        if alive:
            self._job = alive[0]
            await self._cancel(alive[1:])
        return bool(alive)

    async def answers(self) -> bool:
        """Whether the health route answers 200. Raises `EndpointRefused` if the token may not use it."""
        url = self._data_url(self._endpoint.health)
        if url is None:
            return False
        status, self._silent = await health_status(self._probe, url, self._token)
        if status in _FORBIDDEN:
            raise EndpointRefused(
                f"endpoint {self.terms.endpoint} answers {status} on its health route: "
                f"the token needs read access to {self.terms.endpoint.partition('/')[0]}"
            )
        self._answered = self._answered or status == HTTPStatus.OK
        return status == HTTPStatus.OK

    async def pause(self, *, to_zero: bool = False) -> None:
        """Cancel every job of this endpoint. Does nothing if there is none."""
        self._left, self._silent = True, None
        await self._cancel(await self._jobs.alive())

    @asynccontextmanager
    async def connect(self, policy: Policy) -> AsyncIterator[HttpData]:
        """Open the data plane at the job's URL."""
        url = self._data_url("/")
        if url is None:
            raise EndpointLost(f"endpoint {self.terms.endpoint} has no URL")
        wire = for_batches(self._endpoint.wire, policy.batch_size)
        async with data_plane(url, self._token.headers, wire, policy, failure=_failure) as data:
            yield data

    async def _cancel(self, jobs: Sequence[JobDescription]) -> None:
        for job in jobs:
            try:
                await self._jobs.cancel(job)
            except Declined as declined:
                if not (await self._jobs.get(job.id)).ended:
                    raise EndpointSilent(f"job {job.id} cannot be cancelled yet: {declined}") from declined

    def _spec(self) -> Mapping[str, object]:
        endpoint = self._endpoint
        if not endpoint.image or not endpoint.command or not endpoint.flavor:
            raise EndpointFailed(f"endpoint {self.terms.endpoint} cannot be started: set image=, command= and flavor=")
        optional = {"secrets": self._secrets, "volumes": list(endpoint.volumes)}
        return {
            "dockerImage": endpoint.image,
            "command": list(endpoint.command),
            "arguments": [],
            "environment": dict(endpoint.env),
            "flavor": endpoint.flavor,
            "timeoutSeconds": int(seconds_of(endpoint.timeout)),
            "expose": {"ports": [endpoint.port], "portsPublic": []},
            **{key: value for key, value in optional.items() if value},
        }

    def _data_url(self, route: str) -> URL | None:
        if self._job is None or not self._job.urls:
            return None
        url = URL(self._job.urls[0].rstrip("/") + route)
        if not keeps_secrets(url):
            raise EndpointFailed(f"endpoint {self.terms.endpoint} is at {url}: no token is sent there unencrypted")
        return url


def _failure(url: str, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """Return the failure for a status other than 200. The proxy's own answers, if the job has ended, are no JSON."""
    if status in _NOT_READY and not body.lstrip().startswith((b"{", b"[")):
        return EndpointLost(f"nothing answers behind {url} ({status})")
    return from_answer(url, status, headers, body)
