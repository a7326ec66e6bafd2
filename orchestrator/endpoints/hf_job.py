"""HuggingFaceJobEndpoint: model servers that run as Hugging Face Jobs, and bill until the jobs end."""

from __future__ import annotations

import hmac
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

from orchestrator.domain.command_line import check_arguments
from orchestrator.domain.errors import EndpointFailed, UsageError
from orchestrator.domain.moment import seconds_of
from orchestrator.domain.terms import Pause, Terms
from orchestrator.domain.urls import names_key
from orchestrator.domain.worker import CONTAINER_TOKEN_ENV, CONTAINER_TOKEN_HEADER
from orchestrator.endpoints.api_calls import session_of_probes
from orchestrator.endpoints.hf_calls import HfCalls
from orchestrator.endpoints.hf_job_control import JobAccess, JobControl, JobGroup
from orchestrator.endpoints.hf_jobs_api import SCOPE, Jobs
from orchestrator.endpoints.hf_spec import NAME, NAMESPACE
from orchestrator.endpoints.hf_token import HF_TOKEN
from orchestrator.wires.huggingface import HuggingFaceWire, for_batches
from orchestrator.wires.openai import OpenAIChatWire
from orchestrator.wires.reask import refusal_of
from orchestrator.wires.tei import TeiWire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orchestrator.domain.errors import OrchestratorError, RequestFailed
    from orchestrator.domain.policy import Policy
    from orchestrator.endpoints.hf_token import Token
    from orchestrator.wires.wire import Wire

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VOLUME_TYPES = ("model", "dataset", "bucket", "space")
_OF_A_VOLUME = {"type", "source", "mountPath", "revision", "readOnly", "path"}


@dataclass(frozen=True, slots=True)
class HuggingFaceJobEndpoint:
    """A model server as a Hugging Face Job with an exposed port: created for a run, and cancelled after it.

    `name`: NAME or namespace/NAME. It is the job's label, by which any process finds the job again. Without a
    namespace, that of the token's owner is used.
    `image`, `command`: the container and the server in it, which must listen on 0.0.0.0 at `port`. `flavor`: the
    hardware, as in `hf jobs hardware`.
    `timeout`: how long one job may run at most: "90m", "4h". The provider ends it then, or earlier if the run's budget,
    window or deadline ends first, whatever has become of us. If the run still has work, the next job takes its place.
    `replicas`: how many jobs at once. Each has its own URL; one that ends is replaced while the others work.
    `volumes`: models, datasets and buckets, as the API takes them: {"type": "model", "source": "acme/m", "mountPath":
    "/model"}, and optionally "revision", "path", "readOnly".
    `env`: variables of the container. `secrets`: names of environment variables here whose values it gets as secrets.
    `health`: a route that answers 200 once the server is ready. `wire`: the request format.
    `model`: what is served, so that answers stay valid if image, command or hardware change.
    `own_token`: the container gets the secret ORCHESTRATOR_CONTAINER_TOKEN, and requests carry it in the header
    X-Orchestrator-Token. It is derived from the Hub's token and the endpoint's name, and stored nowhere.
    `token_env`, `startup_timeout`, `pause`, `linger`: as in `HuggingFaceEndpoint`. `price_per_hour`: dollars per
    job; looked up by default.
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
    replicas: int = 1
    health: str = "/health"
    wire: Wire = field(default_factory=HuggingFaceWire)
    model: str | None = None
    own_token: bool = False
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
        if self.replicas < 1:
            raise ValueError(f"replicas must be at least 1, not {self.replicas}")
        if not 0 < self.port < 65536:
            raise ValueError(f"port must be from 1 to 65535, not {self.port}")
        if not self.health.startswith("/"):
            raise ValueError(f"health must begin with /, not {self.health!r}")
        if self.pause not in set(Pause) - {Pause.SCALE_TO_ZERO}:
            raise ValueError(f"pause must be if_resumed, always or never, not {self.pause!r}")
        _check_volumes(self.volumes)
        if odd := next((name for name in self.secrets if not _VARIABLE.fullmatch(name)), None):
            raise ValueError(f"secrets: {odd!r} is not the name of an environment variable")
        if twice := next((name for name in self.secrets if name in self.env), None):
            raise ValueError(f"{twice} is in both env and secrets")
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

    @classmethod
    def worker(
        cls,
        name: str,
        model: str,
        *,
        image: str,
        flavor: str,
        task: str = "",
        revision: str | None = None,
        arguments: Sequence[str] = (),
        **settings: Any,
    ) -> Self:
        """Return an endpoint that serves a model with the worker of `LocalEndpoint`, to holders of its token only.

        `image`: one with this package and its extra `local`. `task`: a pipeline task of transformers; without one, the
        model's handler.py is served. `settings`: any other field.
        """
        what = ["--task", task] if task else ["--handler"]
        at = [] if revision is None else ["--revision", revision]
        command = ["python", "-m", "orchestrator.worker.container", "--model", model, *what, *at, *arguments]
        served = f"{model}@{revision or 'main'}{f' as {task}' if task else ''}"
        usual: dict[str, Any] = {"image": image, "model": served, "own_token": True}
        return cls(name, command=command, flavor=flavor, **usual | settings)

    def identity(self, policy: Policy) -> Mapping[str, object]:
        """Return the model (or the image and the command) and the wire. Sends nothing."""
        if not self._can_start:
            raise UsageError(self._cannot_start)
        model = self.model or [self.image, *self.command]
        return {"kind": "huggingface_job", "model": model, **for_batches(self.wire, policy.batch_size).identity}

    async def unsendable(self, request: bytes, policy: Policy) -> RequestFailed | None:
        """Return why the wire cannot send this request, or None if it can."""
        return await refusal_of(for_batches(self.wire, policy.batch_size), request)

    @asynccontextmanager
    async def control(self) -> AsyncIterator[JobControl | JobGroup]:
        """Find the token and the namespace, and open the sessions. Raises `UsageError` if there is no token.

        `resume` raises one if a secret is not in the environment: nobody needs the secrets to look at jobs or to end
        them.
        """
        namespace, _, name = self.name.rpartition("/")
        async with (
            HfCalls.open(namespace or None, token_env=self.token_env, scope=SCOPE) as calls,
            session_of_probes() as probe,
        ):
            secrets = {name: value for name in self.secrets if (value := os.environ.get(name))}
            headers = dict(calls.token.headers)
            if self.own_token:
                secrets[CONTAINER_TOKEN_ENV] = headers[CONTAINER_TOKEN_HEADER] = _own_token(
                    calls.token, namespace, name
                )
            calls.hide(*secrets.values())
            access = JobAccess(
                self.name,
                self._terms(f"{calls.namespace}/{name}"),
                Jobs(calls, name),
                probe,
                self._spec(secrets),
                seconds_of(self.timeout),
                self.health,
                self.wire,
                headers,
                self.price_per_hour,
                self.startup_timeout,
            )
            yield JobControl(access) if self.replicas == 1 else JobGroup(access, self.replicas)

    @asynccontextmanager
    async def jobs(self) -> AsyncIterator[Jobs]:
        """Open the API for its jobs, to look at them: no secret is needed. Raises `UsageError` if there is no token."""
        namespace, _, name = self.name.rpartition("/")
        async with HfCalls.open(namespace or None, token_env=self.token_env, scope=SCOPE) as calls:
            yield Jobs(calls, name)

    @property
    def _can_start(self) -> bool:
        return bool(self.image and self.command and self.flavor)

    @property
    def _cannot_start(self) -> str:
        return f"endpoint {self.name} cannot be started: set image=, command= and flavor="

    def _spec(self, secrets: Mapping[str, str]) -> Mapping[str, object] | OrchestratorError:
        """Return what the API is sent to create a job, or why none can be created."""
        if not self._can_start:
            return EndpointFailed(self._cannot_start)
        if unset := next((name for name in self.secrets if name not in secrets), None):
            return UsageError(f"endpoint {self.name}: set the environment variable {unset}, which secrets= names")
        optional = {"secrets": secrets, "volumes": list(self.volumes)}
        return {
            "dockerImage": self.image,
            "command": list(self.command),
            "arguments": [],
            "environment": dict(self.env),
            "flavor": self.flavor,
            "expose": {"ports": [self.port], "portsPublic": []},
            **{key: value for key, value in optional.items() if value},
        }

    def _terms(self, name: str) -> Terms:
        kept = {"kind": "huggingface_job", "name": name}
        return Terms(
            endpoint=name,
            pause_with=kept | ({"token_env": self.token_env} if self.token_env != HF_TOKEN else {}),
            pause=Pause(self.pause),
            linger=self.linger,
            price_per_hour=None if self.price_per_hour is None else self.price_per_hour * self.replicas,
        )


def _own_token(token: Token, namespace: str, name: str) -> str:
    """Return the token of the endpoint's servers. Every process that may create jobs knows it, and none stores it."""
    return hmac.new(token.value.encode(), f"{namespace}/{name}".encode(), "sha256").hexdigest()


def _check_volumes(volumes: Sequence[object]) -> None:
    for volume in volumes:
        if not isinstance(volume, Mapping) or not {"type", "source", "mountPath"} <= volume.keys():
            raise ValueError('volumes must be a list of {"type": ..., "source": ..., "mountPath": ...}')
        if odd := next((name for name in volume if name not in _OF_A_VOLUME), None):
            raise ValueError(f"a volume has no setting {odd!r}: {', '.join(sorted(_OF_A_VOLUME))}")
        if volume["type"] not in _VOLUME_TYPES:
            raise ValueError(f"a volume's type must be one of {', '.join(_VOLUME_TYPES)}, not {volume['type']!r}")
        if not str(volume["mountPath"]).startswith("/"):
            raise ValueError(f"a volume's mountPath must begin with /, not {volume['mountPath']!r}")
