"""LocalEndpoint: a model on this machine. Resuming it starts a process that loads it; pausing ends the process."""

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

from orchestrator.domain.batching import Limits
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.environment import HUB, without_secrets
from orchestrator.domain.errors import UsageError
from orchestrator.domain.vector_dtype import AUTO, CHOSEN, auto_dtype, chosen_before
from orchestrator.domain.worker import CANNOT_SERVE
from orchestrator.endpoints import local_imports
from orchestrator.endpoints.devices import Seat, cores, cpu_flags, only_cpu, seats
from orchestrator.endpoints.last_words import ending, reason
from orchestrator.endpoints.local_data import LocalData
from orchestrator.endpoints.local_imports import OwnModule, find_module
from orchestrator.endpoints.local_model import HANDLER, LocalModel, find_model, fingerprint
from orchestrator.endpoints.member_group import MemberGroup
from orchestrator.endpoints.server_log import ServerLog
from orchestrator.endpoints.vitals_files import vitals_file
from orchestrator.endpoints.worker_place import UnixPlace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from anyio.abc import Process

    from orchestrator.domain.policy import Policy
    from orchestrator.domain.terms import Terms
    from orchestrator.endpoints.worker_place import WorkerPlace

_BATCH = 32  # inputs in one request, unless the policy says otherwise
_BATCH_OF_QUICK = 128  # the worker groups inputs of similar length: more inputs mean less padding (6 to 20 % faster)
_BATCH_TO_TUNE = 512  # the same on an accelerator, which has room for more than 128 inputs in one call
_QUICK = frozenset({"feature-extraction", "fill-mask", "text-classification", "token-classification"})
_LABELS = frozenset({"text-classification", "sentiment-analysis"})
_GRACE = 5.0  # seconds for a health check, and from SIGTERM to SIGKILL
_EXIT_WAIT = 1.0  # seconds that we wait for a worker that broke a connection to end
_DEADLINE = 30.0  # seconds within which a killed process is gone, unless the kernel hangs
_OK = 200


@dataclass(frozen=True, slots=True)
class LocalEndpoint:
    """A model served by a worker process of ours, which always ends when we do, even if we are killed.

    `model`: a folder, `package:NAME`, the name of an installed package that contains a model, or an id on the Hub.
    `task`: a pipeline task of transformers; not needed for a folder with a `handler.py`. `revision`: of a model on the
    Hub.
    `parameters`: sent with every request; an item's own take precedence.
    `device`: a torch device; None is the first accelerator, else the CPU. Numbers mean the same as in transformers: 0
    is the first accelerator, or the CPU if there is none, and -1 is the CPU. `dtype`: "auto" keeps that of the weights,
    except that vectors are computed in bfloat16 on a CPU with AMX.
    `devices`: several devices instead: "all" accelerators, or a list of names. Each has its own worker, or
    `workers_per_device` of them, which sees no other device. They share the work as several endpoints do.
    `threads`: for one model call; None is every core that this process may use, or the worker's share of them.
    `imports`: modules (by name, or by path to a .py file) that the worker imports first, so that they can register
    pipelines.
    `install_requirements`: install the requirements.txt beside a `handler.py` into a separate environment, within
    `install_timeout`; `startup_timeout` begins after that.
    `trust_remote_code`: run code that comes with the model, such as its `custom_pipelines`, or a `handler.py` instead
    of the task.
    `pass_env`: environment variables that the worker inherits although they are named like secrets.
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
    kept_dtype: str | None = field(init=False, default=None, compare=False)  # set by `choosing_as_in`
    local_model: LocalModel = field(init=False, repr=False, compare=False)
    modules: tuple[OwnModule, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("threads", "workers_per_device"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}")
        if self.install_timeout <= 0:
            raise UsageError(f"install_timeout must be above 0, not {self.install_timeout:g}")
        if self.devices is not None and self.device is not None and self.seat is None:
            raise UsageError("device= names one device and devices= several: leave one of them out")
        object.__setattr__(self, "local_model", find_model(self.model))
        if not self.task and not self.local_model.has_handler:
            raise UsageError(f"model {self.model!r} needs a task, such as text-classification: it has no {HANDLER}")
        if self.task and self.local_model.has_handler and not self.trust_remote_code:
            raise UsageError(
                f"model {self.model!r} has a {HANDLER}, which would be run in place of task {self.task!r}: "
                f"set trust_remote_code=True to run it, or remove {HANDLER} from the folder to run the task"
            )
        if self.install_requirements and not self.local_model.has_handler:
            raise UsageError(f"install_requirements is for a folder with a {HANDLER}; {self.model!r} has none")
        if isinstance(self.imports, str):
            raise UsageError(f"imports is a list of modules, such as [{self.imports!r}]")
        if isinstance(self.pass_env, str):
            raise UsageError(f"pass_env is a list of variables, such as [{self.pass_env!r}]")
        object.__setattr__(self, "modules", tuple(map(find_module, self.imports)))

    @property
    def name(self) -> str:
        """The model's name without its path, and this worker's seat if there are several."""
        return f"local:{self.local_model.name}" + (f"@{self.seat.name}" if self.seat is not None else "")

    def workers(self) -> tuple[LocalEndpoint, ...]:
        """Return one endpoint for each worker: on one device, with its share of the cores.

        Raises `UsageError` if this machine lacks a device. May run nvidia-smi.
        """
        if self.seat is not None or (self.devices is None and self.workers_per_device == 1):
            return (self,)
        devices = self.device if self.devices is None else self.devices
        taken = seats(devices, self.workers_per_device, self.threads)
        workers = (replace(self, device=seat.device, threads=seat.threads, seat=seat) for seat in taken)
        return tuple(_copied(worker, bare=self.bare, kept_dtype=self.kept_dtype) for worker in workers)

    @property
    def earlier_beginning(self) -> str | None:
        """How answers of earlier releases begin: a label alone. Now, as on Hugging Face, it is in a list of one."""
        label_alone = self.task in _LABELS and not self.local_model.has_handler and "top_k" not in self.parameters
        return '{"label":' if label_alone else None

    def as_earlier(self) -> LocalEndpoint:
        """Return a copy whose labels are not in a list, as in earlier releases."""
        return _copied(self, bare=True)

    @property
    def computed_dtype(self) -> str:
        """The dtype that the worker is told; "auto" is that of the weights."""
        return self.kept_dtype or self._own_dtype

    @property
    def _own_dtype(self) -> str:
        """The dtype without regard to earlier runs. May run nvidia-smi."""
        if self.dtype != AUTO or self.local_model.has_handler:
            return self.dtype
        chosen = auto_dtype(self.task, cpu_flags())
        if chosen != AUTO and not only_cpu(self.device if self.devices is None else self.devices):
            return AUTO
        return chosen

    def choosing_as_in(self, earlier: Sequence[Mapping[str, object]], policy: Policy) -> LocalEndpoint:
        """Return the same endpoint with the dtype of earlier runs with these identities, the latest first."""
        own = self._own_dtype
        if self.dtype != AUTO or all(one.get(CHOSEN, AUTO) == own for one in earlier):
            return self
        return _copied(self, kept_dtype=chosen_before(self.identity(policy), earlier))

    def computing_in(self, dtype: str) -> LocalEndpoint:
        """Return a copy whose worker is told this dtype, whatever this machine would choose."""
        return _copied(self, kept_dtype=dtype)

    def choice(self) -> str | None:
        """Return what was chosen for this machine, for the user; None if nothing was."""
        own, computed = self._own_dtype, self.computed_dtype
        if self.dtype != AUTO or own == computed == AUTO:
            return None
        if own == computed:
            return f"vectors are computed in {own}, because this CPU has AMX"
        theirs = "the dtype of the weights" if computed == AUTO else computed
        here = "the dtype of the weights" if own == AUTO else own
        return (
            f"vectors are computed in {theirs}, as in earlier runs of the job (on this CPU, {here} is faster: "
            "set dtype= to change that, and everything is asked again)"
        )

    def log(self, replica: int = 1) -> ServerLog:
        """Return the worker's log."""
        return ServerLog.of(self.name, replica)

    def identity(self, policy: Policy) -> Mapping[str, object]:
        """Return the task, parameters, dtype, and the contents of the model and the imports. Reads their files."""
        folders = [module.folder for module in self.modules]
        imports = [local_imports.fingerprint(module, folders) for module in self.modules]
        computed = self.computed_dtype
        return {
            "kind": "local",
            "task": self.task,
            "model": fingerprint(self.local_model, self.revision),
            "parameters": dict(self.parameters),
            "dtype": self.dtype,
            **({CHOSEN: computed} if computed != self.dtype else {}),
            **({"imports": imports} if imports else {}),
        }

    @asynccontextmanager
    async def control(self) -> AsyncIterator[LocalControl | MemberGroup[LocalControl]]:
        """Create a private folder for the workers' sockets. The workers and the folder are gone when the block ends."""
        workers = await anyio.to_thread.run_sync(self.workers)
        folder = Path(await anyio.to_thread.run_sync(tempfile.mkdtemp))  # mode 0700: no other user can send requests
        controls = [
            LocalControl(worker, UnixPlace(str(folder / f"socket{number}"))) for number, worker in enumerate(workers)
        ]
        control = controls[0] if len(controls) == 1 else MemberGroup(controls)
        try:
            yield control
        finally:
            with anyio.CancelScope(shield=True):
                try:
                    await control.pause()
                finally:
                    await anyio.to_thread.run_sync(shutil.rmtree, folder, True)  # noqa: FBT003 - ignore_errors


def _copied(endpoint: LocalEndpoint, **fields: object) -> LocalEndpoint:
    """Return a copy with these fields, which are not the user's."""
    copied = copy.copy(endpoint)
    for name, value in fields.items():
        object.__setattr__(copied, name, value)
    return copied


class LocalControl:
    """The control plane of one worker process."""

    terms: Terms | None = None  # the worker always ends with us
    look_every = 0.1

    def __init__(self, endpoint: LocalEndpoint, place: WorkerPlace) -> None:
        self.endpoint = endpoint
        self.name = endpoint.name
        self._place = place
        self._log = endpoint.log()
        self._log_since = 0  # where this worker's output begins
        self._vitals = vitals_file(endpoint.name, os.getpid())  # the worker writes it
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
        return self.endpoint.install_requirements and self._process is not None and not self._listens

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
            log, self._log_since = await anyio.to_thread.run_sync(self._log.begin, f"worker for {self.endpoint.model}")
            try:
                command = await anyio.to_thread.run_sync(
                    _command, self.endpoint, self._vitals
                )  # it reads /proc/cpuinfo
                with self._place.opened() as (arguments, descriptors):
                    self._process = await anyio.open_process(
                        [*command, *arguments],
                        stdin=subprocess.PIPE,  # the worker's lifeline: our side closes however we end
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        env={**environment(self.endpoint), **self._place.environment},
                        start_new_session=True,  # Ctrl-C must not reach the worker, which answers until we end it
                        pass_fds=descriptors,
                    )
            finally:
                os.close(log)
        self._install_by = anyio.current_time() + self.endpoint.install_timeout

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
                f"its requirements were not installed within {self.endpoint.install_timeout:g} s: "
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
        endpoint = self.endpoint
        # several workers share smaller batches more evenly
        limits = limits_of(endpoint, self.info, policy, shared=endpoint.seat is not None)
        async with self._place.session(policy.timeout) as session:
            yield LocalData(session, self, policy, limits, endpoint.parameters, bare=endpoint.bare)

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
        why = reason(await anyio.to_thread.run_sync(self._log.tail, self._log_since))
        return f"{ending(process.returncode)}; its last words: {why}"

    async def _last_words(self, code: int) -> str:
        log = await anyio.to_thread.run_sync(self._log.tail, self._log_since)
        last = log.rstrip().rpartition("\n")[2]
        if last.startswith(CANNOT_SERVE):
            return last.removeprefix(CANNOT_SERVE)
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        memory = " (out of memory?)" if -code == signal.SIGKILL else ""
        return f"the worker {how}{memory} while loading the model; its last words: {last or 'none'}"


def limits_of(endpoint: LocalEndpoint, info: Mapping[str, object], policy: Policy, *, shared: bool) -> Limits:
    """Return how many inputs one request may carry.

    `info`: what the worker's health route says. `shared`: several workers share the items.
    """
    task, declared = endpoint.task, info.get("max_batch_size")
    usual = declared if isinstance(declared, int) else _BATCH_OF_QUICK if task in _QUICK else _BATCH
    if policy.batch_size == "auto" and task in _QUICK and not str(info.get("device", "cpu")).startswith("cpu"):
        usual = _BATCH_TO_TUNE
    similar = shared or endpoint.local_model.has_handler  # a handler does not group inputs by length
    return Limits(policy.batch_size if isinstance(policy.batch_size, int) else usual, neighbours=similar)


async def _end(process: Process, how: signal.Signals) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):  # it has just ended by itself
            process.send_signal(how)
        await process.wait()


def _command(endpoint: LocalEndpoint, vitals: Path) -> list[str]:
    options = {
        "task": endpoint.task,
        "model": endpoint.local_model.source,
        "revision": endpoint.revision,
        "device": endpoint.device,
        "dtype": endpoint.computed_dtype,
        "threads": _threads(endpoint),
        "report": vitals,
        "endpoint": endpoint.name,
        "parent": os.getpid(),
    }
    command = [sys.executable, "-P", "-m", "orchestrator.worker"]
    command += [f"--{name}={value}" for name, value in options.items() if value is not None]
    command += [f"--import={module.argument}" for module in endpoint.modules]
    command += ["--handler"] * endpoint.local_model.has_handler
    command += ["--install-requirements"] * endpoint.install_requirements
    return [*command, "--trust-remote-code"] if endpoint.trust_remote_code else command


def environment(endpoint: LocalEndpoint) -> dict[str, str]:
    """Return our environment without its secrets, with the settings that torch, OpenMP and MKL read only at import.

    It includes the Hub's token if the model comes from the Hub.
    """
    threads = str(_threads(endpoint))
    package = str(Path(__file__).parents[2])  # so that the worker runs this same code, installed or not
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    seat = endpoint.seat
    needed = [*endpoint.pass_env, *(HUB if endpoint.local_model.folder is None else ())]
    return {
        **without_secrets(os.environ, needed, installs=endpoint.install_requirements),
        **({"CUDA_VISIBLE_DEVICES": seat.visible} if seat is not None and seat.visible is not None else {}),
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "PASSIVE",  # waiting threads sleep, because spinning ones would starve other processes
        "TOKENIZERS_PARALLELISM": "false",
        **_place_of(endpoint),
    }


def _place_of(endpoint: LocalEndpoint) -> dict[str, str]:
    """Return the variables about the model's place: the toolkit's for a handler, else offline mode for local files."""
    if endpoint.local_model.has_handler:
        return {"HF_MODEL_DIR": endpoint.local_model.source, **({"HF_TASK": endpoint.task} if endpoint.task else {})}
    return {} if endpoint.local_model.folder is None else {"HF_HUB_OFFLINE": "1"}


def _threads(endpoint: LocalEndpoint) -> int:
    return endpoint.threads or cores()
