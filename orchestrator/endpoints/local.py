"""LocalEndpoint: a model on this machine. Waking it starts a child process that loads it; pausing ends the process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager, suppress
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import anyio
import anyio.to_thread
import orjson

from orchestrator.domain.batching import Limits
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import EndpointLost, FailureKind, RequestFailed, UsageError
from orchestrator.endpoints import local_imports
from orchestrator.endpoints.local_imports import OwnModule, find_module
from orchestrator.endpoints.local_model import LocalModel, find_model, fingerprint
from orchestrator.wires import failures

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from anyio.abc import Process

    from orchestrator.domain.policy import Policy
    from orchestrator.domain.terms import Terms

_BATCH = 32  # inputs in one request, unless the policy says otherwise
_BATCH_OF_QUICK = 128  # the worker cuts by padding: the more it may choose from, the less of it (6 to 20 % faster)
_QUICK = frozenset({"feature-extraction", "fill-mask", "text-classification", "token-classification"})
_LANES = 2  # one batch computes, the next already waits beside it
_PATIENCE = 5.0  # seconds: for a sign of life, and from the request to end to the end by force
_DEADLINE = 30.0  # seconds in which a killed process is gone, unless the kernel itself hangs
_CANNOT_SERVE = "cannot serve: "  # begins the worker's last line where it cannot load its model
_OK = 200


@dataclass(frozen=True, slots=True)
class LocalEndpoint:
    """A model served by a process of our own, which ends with us however we end.

    `model`: a folder, `package:NAME`, the name of an installed package that carries a model, or an id on the hub.
    `task`: a pipeline task of transformers. `revision`: of a model on the hub.
    `parameters`: go with every request; an item's own win over them.
    `device`: a torch device; None is the first accelerator, else the CPU. `dtype`: auto is as the weights are.
    `threads`: for one model call; None is every core this process may use.
    `imports`: modules (by name, or by path to a .py file) that the worker imports first: they register pipelines.
    `trust_remote_code`: run the code that lies beside the model, its `custom_pipelines` for one.
    """

    model: str
    task: str
    _: KW_ONLY
    revision: str | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    device: str | None = None
    dtype: str = "auto"
    threads: int | None = None
    startup_timeout: float = 300.0
    trust_remote_code: bool = False
    imports: Sequence[str] = ()
    found: LocalModel = field(init=False, repr=False, compare=False)
    modules: tuple[OwnModule, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads must be at least 1, not {self.threads}")
        object.__setattr__(self, "found", find_model(self.model))
        if isinstance(self.imports, str):
            raise UsageError(f"imports is a list of modules, such as [{self.imports!r}]")
        object.__setattr__(self, "modules", tuple(map(find_module, self.imports)))

    @property
    def name(self) -> str:
        """The model's name without its path."""
        return f"local:{self.found.name}"

    def identity(self, policy: Policy) -> Mapping[str, object]:  # noqa: ARG002 - it shapes no answer here
        """Task, parameters, dtype, and model and imports by content. Reads their files."""
        imports = [local_imports.fingerprint(module) for module in self.modules]
        return {
            "kind": "local",
            "task": self.task,
            "model": fingerprint(self.found, self.revision),
            "parameters": dict(self.parameters),
            "dtype": self.dtype,
            **({"imports": imports} if imports else {}),
        }

    @asynccontextmanager
    async def control(self) -> AsyncIterator[LocalControl]:
        """Make room for a worker: a private folder for its socket and its log. Both are gone when the block ends."""
        folder = Path(await anyio.to_thread.run_sync(tempfile.mkdtemp))  # mode 0700: nobody else can ask the model
        control = LocalControl(self, folder)
        try:
            yield control
        finally:
            with anyio.CancelScope(shield=True):
                try:
                    await control.pause()
                finally:
                    await anyio.to_thread.run_sync(shutil.rmtree, folder, True)  # noqa: FBT003 - ignore_errors


class LocalControl:
    """The worker process of one endpoint."""

    terms: Terms | None = None  # it ends with us, however we end
    look_every = 0.1

    def __init__(self, endpoint: LocalEndpoint, folder: Path) -> None:
        self._endpoint = endpoint
        self._socket = str(folder / "socket")
        self._log = folder / "log"
        self._process: Process | None = None
        self._was_awake = False
        self._words: str | None = None

    @property
    def said(self) -> str:
        """What the worker is at; its own last words where it ended while loading."""
        if self._words is not None:
            return self._words
        if self._process is None:
            return "no worker runs"
        return "awake" if self._was_awake else "loading the model"

    @property
    def pid(self) -> int | None:
        """Of the worker, while there is one."""
        return None if self._process is None else self._process.pid

    async def resume(self) -> None:
        """Start the worker, unless it runs."""
        if await self.state() in {EndpointState.STARTING, EndpointState.AWAKE}:
            return
        await self.pause()  # of a worker that died, something may be left
        async with await anyio.open_file(self._log, "wb") as log:
            self._process = await anyio.open_process(
                _command(self._endpoint, self._socket),
                stdin=subprocess.PIPE,  # its other side closes with us, however we end: the worker's lifeline
                stdout=log.wrapped.fileno(),
                stderr=subprocess.STDOUT,
                env=_environment(self._endpoint),
                start_new_session=True,  # Ctrl-C is for us; the worker answers until we end it
            )

    async def state(self) -> EndpointState:
        """Look at the process and ask it. Failed is one that ended while it was loading."""
        if self._process is None:
            return EndpointState.PAUSED
        if self._process.returncode is not None:
            if self._was_awake:
                return EndpointState.PAUSED
            self._words = await self._last_words(self._process.returncode)
            return EndpointState.FAILED
        timeout = aiohttp.ClientTimeout(total=_PATIENCE)
        try:
            async with (
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(self._socket), timeout=timeout) as session,
                session.get("http://worker/health") as response,
            ):
                self._was_awake = self._was_awake or response.status == _OK
        except TimeoutError:  # alive, and too busy to say so
            pass
        except aiohttp.ClientError:
            if self._was_awake:  # nobody listens any more, though the process may not be buried yet
                return EndpointState.PAUSED
        return EndpointState.AWAKE if self._was_awake else EndpointState.STARTING

    async def price(self) -> None:
        """Nobody publishes one."""

    async def answers(self) -> bool:
        """Whether the worker says that its model is loaded."""
        return await self.state() is EndpointState.AWAKE

    async def pause(self, *, to_zero: bool = False) -> None:  # noqa: ARG002 - no request could wake it
        """End the worker and see it gone."""
        if self._process is None:
            return
        process = self._process
        with anyio.CancelScope(shield=True), anyio.fail_after(_DEADLINE):
            with anyio.move_on_after(_PATIENCE):
                await _end(process, signal.SIGTERM)
            await _end(process, signal.SIGKILL)
            if process.stdin is not None:
                await process.stdin.aclose()
        self._process, self._was_awake, self._words = None, False, None

    @asynccontextmanager
    async def connect(self, policy: Policy) -> AsyncIterator[LocalData]:
        """Open the data plane; every request has `policy.timeout`, the wait for the one before it included."""
        async with aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(self._socket, limit=0),
            timeout=aiohttp.ClientTimeout(total=policy.timeout),
        ) as session:
            yield LocalData(session, self._endpoint, policy)

    async def _last_words(self, code: int) -> str:
        log = await anyio.Path(self._log).read_text(errors="replace")
        last = log.rstrip().rpartition("\n")[2]
        if last.startswith(_CANNOT_SERVE):
            return last.removeprefix(_CANNOT_SERVE)
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        memory = " (out of memory?)" if -code == signal.SIGKILL else ""
        return f"the worker {how}{memory} while loading the model; its last words: {last or 'none'}"


class LocalData:
    """Batches to the worker, as they stand; answers back."""

    def __init__(self, session: aiohttp.ClientSession, endpoint: LocalEndpoint, policy: Policy) -> None:
        self._session = session
        self._name = endpoint.name
        self._tail = b'],"parameters":' + orjson.dumps(dict(endpoint.parameters)) + b"}"
        self.lanes = _LANES
        self.quiet_until = 0.0
        given = policy.batch_size if isinstance(policy.batch_size, int) else None
        self.limits = Limits(given or (_BATCH_OF_QUICK if endpoint.task in _QUICK else _BATCH))

    async def metrics(self) -> None:
        """A worker takes two requests, one in work and one in wait: there is nothing to find out."""

    async def ask(self, requests: Sequence[bytes]) -> Sequence[object]:
        """One entry per request: the model's output, or why there is none."""
        body = b'{"inputs":[' + b",".join(requests) + self._tail
        try:
            async with self._session.post("http://worker/batch", data=body) as response:
                content = await response.read()
        except TimeoutError as error:
            raise RequestFailed(FailureKind.TIMEOUT, "no complete answer before the attempt's time-out") from error
        except aiohttp.ClientConnectorError as error:
            raise EndpointLost(f"{self._name}: the worker is gone") from error
        except (aiohttp.ClientError, OSError) as error:
            raise EndpointLost(f"{self._name}: the worker died over a request", blames_items=True) from error
        if response.status != _OK:
            kind = FailureKind.UNAVAILABLE if response.status >= 500 else FailureKind.REJECTED  # noqa: PLR2004
            raise RequestFailed(kind, failures.words(content), status=response.status)
        return [_answer(entry) for entry in orjson.loads(content)["answers"]]


def _answer(entry: dict[str, object]) -> object:
    error = entry.get("error")
    if isinstance(error, dict):
        return RequestFailed(FailureKind(error["kind"]), error["message"])
    return entry["output"]


async def _end(process: Process, how: signal.Signals) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):  # it went by itself just now
            process.send_signal(how)
        await process.wait()


def _command(endpoint: LocalEndpoint, socket: str) -> list[str]:
    options = {
        "socket": socket,
        "task": endpoint.task,
        "model": endpoint.found.source,
        "revision": endpoint.revision,
        "device": endpoint.device,
        "dtype": endpoint.dtype,
        "threads": _threads(endpoint),
    }
    command = [sys.executable, "-P", "-m", "orchestrator.worker"]
    command += [f"--{name}={value}" for name, value in options.items() if value is not None]
    command += [f"--import={module.argument}" for module in endpoint.modules]
    return [*command, "--trust-remote-code"] if endpoint.trust_remote_code else command


def _environment(endpoint: LocalEndpoint) -> dict[str, str]:
    """What must stand before torch is imported: OpenMP and MKL read it once."""
    threads = str(_threads(endpoint))
    package = str(Path(__file__).parents[2])  # so that the worker runs this very code, installed or not
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    return {
        **os.environ,
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "PASSIVE",  # waiting threads sleep: spinning ones starve whatever else runs here
        "TOKENIZERS_PARALLELISM": "false",
        **({} if endpoint.found.folder is None else {"HF_HUB_OFFLINE": "1"}),  # the files are here: ask nobody
    }


def _threads(endpoint: LocalEndpoint) -> int:
    if endpoint.threads is not None:
        return endpoint.threads
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))  # a container or taskset may allow fewer than there are
    return os.cpu_count() or 1
