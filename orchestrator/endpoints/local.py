"""LocalEndpoint: a model on this machine. Waking it starts a child process that loads it; pausing ends the process."""

from __future__ import annotations

import copy
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager, suppress
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import anyio
import anyio.to_thread

from orchestrator import exact_json
from orchestrator.domain.answer import Answer, Note, input_cut_to
from orchestrator.domain.batching import Limits
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.environment import HUB, without_secrets
from orchestrator.domain.errors import EndpointLost, FailureKind, RequestFailed, UsageError
from orchestrator.domain.worker import CANNOT_SERVE
from orchestrator.endpoints import local_imports
from orchestrator.endpoints.bodies import beginning, too_large
from orchestrator.endpoints.devices import Seat, cores, seats
from orchestrator.endpoints.last_words import ending, reason
from orchestrator.endpoints.local_imports import OwnModule, find_module
from orchestrator.endpoints.local_model import HANDLER, LocalModel, find_model, fingerprint
from orchestrator.endpoints.member_group import MemberGroup
from orchestrator.endpoints.server_log import ServerLog
from orchestrator.endpoints.vitals_files import vitals_file
from orchestrator.wires import failures

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from anyio.abc import Process

    from orchestrator.domain.policy import Policy
    from orchestrator.domain.terms import Terms
    from orchestrator.ports import Again

_BATCH = 32  # inputs in one request, unless the policy says otherwise
_BATCH_OF_QUICK = 128  # the worker cuts by padding: the more it may choose from, the less of it (6 to 20 % faster)
_BATCH_TO_TUNE = 512  # the same on an accelerator, which has room for more than 128 of them in one call
_QUICK = frozenset({"feature-extraction", "fill-mask", "text-classification", "token-classification"})
_LABELS = frozenset({"text-classification", "sentiment-analysis"})
_TOP_K = b'"top_k"'  # in a request: it asks for a list itself
_LANES = 2  # one batch computes, the next already waits beside it
_PATIENCE = 5.0  # seconds: for a sign of life, and from the request to end to the end by force
_BURIAL = 1.0  # seconds in which a worker that broke a connection is seen to end
_DEADLINE = 30.0  # seconds in which a killed process is gone, unless the kernel itself hangs
_OK = 200
_FAILURES = {  # what the worker answers where it does not say that the request is wrong
    500: FailureKind.DUBIOUS,  # something raised that it did not foresee, over one of these inputs
    503: FailureKind.UNAVAILABLE,  # the model is still loading
}


@dataclass(frozen=True, slots=True)
class LocalEndpoint:
    """A model served by a process of our own, which ends with us however we end.

    `model`: a folder, `package:NAME`, the name of an installed package that carries a model, or an id on the hub.
    `task`: a pipeline task of transformers; a folder with a `handler.py` needs none. `revision`: of a model on the hub.
    `parameters`: go with every request; an item's own win over them.
    `device`: a torch device; None is the first accelerator, else the CPU. A number is what it is to transformers: 0 the
    first accelerator, or the CPU where there is none, and -1 the CPU. `dtype`: auto is as the weights are.
    `devices`: several instead: "all" accelerators, or a list of names; each has a worker of its own, which sees no
    other, or `workers_per_device` of them. They share the work as several endpoints do.
    `threads`: for one model call; None is every core this process may use, or the worker's part of them.
    `imports`: modules (by name, or by path to a .py file) that the worker imports first: they register pipelines.
    `install_requirements`: install the requirements.txt beside a `handler.py` into an environment of its own, within
    `install_timeout`; `startup_timeout` begins after that.
    `trust_remote_code`: run the code that lies beside the model, its `custom_pipelines` for one, or a `handler.py` in
    place of the task.
    `pass_env`: environment variables that the worker is given although they are named like secrets.
    """

    model: str
    task: str | None = None
    _: KW_ONLY
    revision: str | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    device: str | int | None = None
    devices: str | Sequence[str | int] | None = None
    workers_per_device: int = 1
    dtype: str = "auto"
    threads: int | None = None
    startup_timeout: float = 300.0
    trust_remote_code: bool = False
    imports: Sequence[str] = ()
    pass_env: Sequence[str] = ()
    install_requirements: bool = False
    install_timeout: float = 1800.0
    seat: Seat | None = None  # set by `workers`
    bare: bool = field(init=False, default=False, compare=False)  # set by `as_earlier`
    found: LocalModel = field(init=False, repr=False, compare=False)
    modules: tuple[OwnModule, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("threads", "workers_per_device"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}")
        if self.install_timeout <= 0:
            raise UsageError(f"install_timeout must be above 0, not {self.install_timeout:g}")
        if self.devices is not None and self.device is not None and self.seat is None:
            raise UsageError("device= names one device and devices= several: leave one of them out")
        object.__setattr__(self, "found", find_model(self.model))
        if not self.task and not self.found.has_handler:
            raise UsageError(f"model {self.model!r} needs a task, such as text-classification: it has no {HANDLER}")
        if self.task and self.found.has_handler and not self.trust_remote_code:
            raise UsageError(
                f"model {self.model!r} has a {HANDLER}, which would be run in place of task {self.task!r}: "
                f"set trust_remote_code=True to run it, or take {HANDLER} out of the folder to run the task"
            )
        if self.install_requirements and not self.found.has_handler:
            raise UsageError(f"install_requirements is for a folder with a {HANDLER}; {self.model!r} has none")
        if isinstance(self.imports, str):
            raise UsageError(f"imports is a list of modules, such as [{self.imports!r}]")
        if isinstance(self.pass_env, str):
            raise UsageError(f"pass_env is a list of variables, such as [{self.pass_env!r}]")
        object.__setattr__(self, "modules", tuple(map(find_module, self.imports)))

    @property
    def name(self) -> str:
        """The model's name without its path, and where this worker sits where there are several."""
        return f"local:{self.found.name}" + (f"@{self.seat.name}" if self.seat is not None else "")

    def workers(self) -> tuple[LocalEndpoint, ...]:
        """The endpoint as each of its workers serves it: on one device, with its part of the cores.

        `UsageError` if this machine lacks a device. May run the driver's program.
        """
        if self.seat is not None or (self.devices is None and self.workers_per_device == 1):
            return (self,)
        found = seats(self.device if self.devices is None else self.devices, self.workers_per_device, self.threads)
        workers = (replace(self, device=seat.device, threads=seat.threads, seat=seat) for seat in found)
        return tuple(worker.as_earlier() if self.bare else worker for worker in workers)

    @property
    def earlier_beginning(self) -> str | None:
        """A label alone, where Hugging Face's endpoints answer a list of one, as this does now."""
        label_alone = self.task in _LABELS and not self.found.has_handler and "top_k" not in self.parameters
        return '{"label":' if label_alone else None

    def as_earlier(self) -> LocalEndpoint:
        """The same, with a label that is not in a list."""
        earlier = copy.copy(self)
        object.__setattr__(earlier, "bare", True)
        return earlier

    def log(self, replica: int = 1) -> ServerLog:
        """What the worker writes."""
        return ServerLog.of(self.name, replica)

    def identity(self, policy: Policy) -> Mapping[str, object]:
        """Task, parameters, dtype, and model and imports by content. Reads their files."""
        folders = [module.folder for module in self.modules]
        imports = [local_imports.fingerprint(module, folders) for module in self.modules]
        return {
            "kind": "local",
            "task": self.task,
            "model": fingerprint(self.found, self.revision),
            "parameters": dict(self.parameters),
            "dtype": self.dtype,
            **({"imports": imports} if imports else {}),
        }

    @asynccontextmanager
    async def control(self) -> AsyncIterator[LocalControl | MemberGroup[LocalControl]]:
        """Make a private folder for the sockets of its workers, which is gone when the block ends."""
        workers = await anyio.to_thread.run_sync(self.workers)
        folder = Path(await anyio.to_thread.run_sync(tempfile.mkdtemp))  # mode 0700: nobody else can ask the model
        controls = [LocalControl(worker, folder / f"socket{number}") for number, worker in enumerate(workers)]
        control = controls[0] if len(controls) == 1 else MemberGroup(controls)
        try:
            yield control
        finally:
            with anyio.CancelScope(shield=True):
                try:
                    await control.pause()
                finally:
                    await anyio.to_thread.run_sync(shutil.rmtree, folder, True)  # noqa: FBT003 - ignore_errors


class LocalControl:
    """One worker process of an endpoint."""

    terms: Terms | None = None  # it ends with us, however we end
    look_every = 0.1

    def __init__(self, endpoint: LocalEndpoint, socket: Path) -> None:
        self.endpoint = endpoint
        self.name = endpoint.name
        self._socket = str(socket)
        self._log = endpoint.log()
        self._log_since = 0  # where in it the words of this worker begin
        self._vitals = vitals_file(endpoint.name, os.getpid())  # the worker writes it
        self._process: Process | None = None
        self._was_awake = False
        self._listens = False  # once it does, what it requires is installed
        self._install_by = 0.0
        self._words: str | None = None
        self._info: Mapping[str, object] = {}  # what the worker says of its model

    @property
    def said(self) -> str:
        """What the worker is at; its own last words where it ended while loading."""
        if self._words is not None:
            return self._words
        if self._process is None:
            return "no worker runs"
        if self._was_awake:
            return "awake"
        return "installing requirements" if self.installing else "loading the model"

    @property
    def installing(self) -> bool:
        """Whether the worker is not there yet, because its packages may not be."""
        return self.endpoint.install_requirements and self._process is not None and not self._listens

    @property
    def pid(self) -> int | None:
        """Of the worker, while there is one."""
        return None if self._process is None else self._process.pid

    async def resume(self) -> None:
        """Start the worker, unless it runs."""
        if await self.state() in {EndpointState.STARTING, EndpointState.AWAKE}:
            return
        await self.pause()  # of a worker that died, something may be left
        log, self._log_since = await anyio.to_thread.run_sync(self._log.begin, f"worker for {self.endpoint.model}")
        try:
            self._process = await anyio.open_process(
                _command(self.endpoint, self._socket, self._vitals),
                stdin=subprocess.PIPE,  # its other side closes with us, however we end: the worker's lifeline
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(self.endpoint),
                start_new_session=True,  # Ctrl-C is for us; the worker answers until we end it
            )
        finally:
            os.close(log)
        self._install_by = anyio.current_time() + self.endpoint.install_timeout

    async def state(self) -> EndpointState:
        """Look at the process and ask it. Failed is one that ended while it was loading."""
        if self._process is None:
            return EndpointState.PAUSED
        if self._process.returncode is not None:
            if self._was_awake:
                return EndpointState.PAUSED
            self._words = self._words or await self._last_words(self._process.returncode)
            return EndpointState.FAILED
        if self.installing and anyio.current_time() > self._install_by:
            await self.kill()  # the installer ends with it
            self._words = (
                f"its requirements were not installed within {self.endpoint.install_timeout:g} s: "
                "give them more time with install_timeout"
            )
            return EndpointState.FAILED
        timeout = aiohttp.ClientTimeout(total=_PATIENCE)
        try:
            async with (
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(self._socket), timeout=timeout) as session,
                session.get("http://worker/health") as response,
            ):
                self._listens = True
                if response.status == _OK and not self._was_awake:
                    self._info = await response.json()
                    self._was_awake = True
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

    async def pause(self, *, to_zero: bool = False) -> None:
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
            await anyio.Path(self._vitals).unlink(missing_ok=True)
        self._process, self._words = None, None
        self._was_awake = self._listens = False

    @asynccontextmanager
    async def connect(self, policy: Policy) -> AsyncIterator[LocalData]:
        """Open the data plane; every request has `policy.timeout`, the wait for the one before it included."""
        async with aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(self._socket, limit=0),
            timeout=aiohttp.ClientTimeout(total=policy.timeout),
        ) as session:
            yield LocalData(session, self, policy)

    async def kill(self) -> None:
        """End a worker that hangs, at once."""
        if self._process is not None:
            await _end(self._process, signal.SIGKILL)

    async def how_it_died(self) -> str:
        """How a worker that broke a connection ended, and its last words."""
        process = self._process
        if process is None:
            return "is gone"
        with anyio.move_on_after(_BURIAL):
            await process.wait()
        if process.returncode is None:
            return "broke the connection"
        said = reason(await anyio.to_thread.run_sync(self._log.tail, self._log_since))
        return f"{ending(process.returncode)}; its last words: {said}"

    def limits(self, policy: Policy) -> Limits:
        """How many inputs one request may carry."""
        task, declared = self.endpoint.task, self._info.get("max_batch_size")
        usual = declared if isinstance(declared, int) else _BATCH_OF_QUICK if task in _QUICK else _BATCH
        if (
            policy.batch_size == "auto"
            and task in _QUICK
            and not str(self._info.get("device", "cpu")).startswith("cpu")
        ):
            usual = _BATCH_TO_TUNE
        # a model's worker cuts by length itself, a handler does not; several workers share better what is cut smaller
        cut = self.endpoint.seat is not None or self.endpoint.found.has_handler
        return Limits(policy.batch_size if isinstance(policy.batch_size, int) else usual, neighbours=cut)

    async def _last_words(self, code: int) -> str:
        log = await anyio.to_thread.run_sync(self._log.tail, self._log_since)
        last = log.rstrip().rpartition("\n")[2]
        if last.startswith(CANNOT_SERVE):
            return last.removeprefix(CANNOT_SERVE)
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        memory = " (out of memory?)" if -code == signal.SIGKILL else ""
        return f"the worker {how}{memory} while loading the model; its last words: {last or 'none'}"


class LocalData:
    """Batches to the worker, as they stand; answers back."""

    def __init__(self, session: aiohttp.ClientSession, control: LocalControl, policy: Policy) -> None:
        self._session = session
        self._control = control
        self._name = control.endpoint.name
        self._timeout, self._most = policy.timeout, policy.max_answer_bytes
        tune = b',"tune":true' if policy.batch_size == "auto" else b""
        self._tail = b'],"parameters":' + exact_json.dumps(dict(control.endpoint.parameters)) + tune + b"}"
        self.max_in_flight = _LANES
        self.quiet_until = 0.0
        self.limits = control.limits(policy)

    async def metrics(self) -> None:
        """A worker takes two requests, one in work and one in wait: there is nothing to find out."""

    async def ask(
        self,
        requests: Sequence[bytes],
        again: Again | None = None,
    ) -> Sequence[object]:
        """One entry per request: the model's output, or why there is none."""
        body = b'{"inputs":[' + b",".join(requests) + self._tail
        try:
            response = await self._session.post("http://worker/batch", data=body)
            content, whole = await beginning(response, self._most)
        except TimeoutError as error:  # its one thread may never come back from the model
            await self._control.kill()
            late = f"{self._name}: no answer within {self._timeout:g} s, so the worker was ended"
            raise EndpointLost(late, blames_items=True) from error
        except aiohttp.ClientConnectorError as error:
            failures.check_room(error)
            raise EndpointLost(f"{self._name}: the worker is gone") from error
        except (aiohttp.ClientError, OSError) as error:
            how = await self._control.how_it_died()
            raise EndpointLost(f"{self._name}: the worker {how}, over a request", blames_items=True) from error
        if response.status != _OK:
            kind = _FAILURES.get(response.status, FailureKind.REJECTED)
            raise RequestFailed(kind, failures.words(content), status=response.status)
        if not whole:
            raise too_large(self._most)
        answers = [_answer(entry) for entry in exact_json.loads(content)["answers"]]
        if not self._control.endpoint.bare:
            return answers
        return [
            _bare(answer) if _TOP_K not in request else answer
            for request, answer in zip(requests, answers, strict=True)
        ]


def _answer(entry: dict[str, object]) -> object:
    error = entry.get("error")
    if isinstance(error, dict):
        return RequestFailed(FailureKind(error["kind"]), error["message"])
    notes = {input_cut_to(limit)} if type(limit := entry.get(Note.INPUT_CUT)) is int else set[str]()
    notes |= {Note.CUT} if entry.get(Note.CUT) else set[str]()
    return Answer(entry["output"], notes=frozenset(notes)) if notes else entry["output"]


def _bare(answer: object) -> object:
    """A label without the list around it."""
    match answer:
        case Answer([label]):
            return replace(answer, value=label)
        case [label]:
            return label
    return answer


async def _end(process: Process, how: signal.Signals) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):  # it went by itself just now
            process.send_signal(how)
        await process.wait()


def _command(endpoint: LocalEndpoint, socket: str, vitals: Path) -> list[str]:
    options = {
        "socket": socket,
        "task": endpoint.task,
        "model": endpoint.found.source,
        "revision": endpoint.revision,
        "device": endpoint.device,
        "dtype": endpoint.dtype,
        "threads": _threads(endpoint),
        "report": vitals,
        "endpoint": endpoint.name,
        "parent": os.getpid(),
    }
    command = [sys.executable, "-P", "-m", "orchestrator.worker"]
    command += [f"--{name}={value}" for name, value in options.items() if value is not None]
    command += [f"--import={module.argument}" for module in endpoint.modules]
    command += ["--handler"] * endpoint.found.has_handler
    command += ["--install-requirements"] * endpoint.install_requirements
    return [*command, "--trust-remote-code"] if endpoint.trust_remote_code else command


def environment(endpoint: LocalEndpoint) -> dict[str, str]:
    """Ours without its secrets, and what must stand before torch is imported: OpenMP and MKL read it once.

    The hub's token is given where the model comes from the hub.
    """
    threads = str(_threads(endpoint))
    package = str(Path(__file__).parents[2])  # so that the worker runs this very code, installed or not
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    seat = endpoint.seat
    needed = [*endpoint.pass_env, *(HUB if endpoint.found.folder is None else ())]
    return {
        **without_secrets(os.environ, needed, installs=endpoint.install_requirements),
        **({"CUDA_VISIBLE_DEVICES": seat.visible} if seat is not None and seat.visible is not None else {}),
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "PASSIVE",  # waiting threads sleep: spinning ones starve whatever else runs here
        "TOKENIZERS_PARALLELISM": "false",
        **_place_of(endpoint),
    }


def _place_of(endpoint: LocalEndpoint) -> dict[str, str]:
    """A model whose files are here is not looked for on the hub. A handler may, and is told what the toolkit tells."""
    if endpoint.found.has_handler:
        return {"HF_MODEL_DIR": endpoint.found.source, **({"HF_TASK": endpoint.task} if endpoint.task else {})}
    return {} if endpoint.found.folder is None else {"HF_HUB_OFFLINE": "1"}


def _threads(endpoint: LocalEndpoint) -> int:
    return endpoint.threads or cores()
