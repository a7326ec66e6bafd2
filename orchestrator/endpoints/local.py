"""LocalEndpoint: a model on this machine. Resuming it starts a process that loads it; pausing ends the process."""

from __future__ import annotations

import copy
import os
import shutil
import sys
import tempfile
from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from orchestrator.domain.batching import Limits
from orchestrator.domain.environment import HUB, without_secrets
from orchestrator.domain.errors import UsageError
from orchestrator.domain.vector_dtype import AUTO, CHOSEN, auto_dtype, chosen_before
from orchestrator.endpoints import local_imports
from orchestrator.endpoints.devices import Seat, cores, cpu_flags, only_cpu, seats
from orchestrator.endpoints.local_control import LocalControl, WorkerStart
from orchestrator.endpoints.local_imports import OwnModule, find_module
from orchestrator.endpoints.local_model import HANDLER, LocalModel, find_model, fingerprint
from orchestrator.endpoints.member_group import MemberGroup
from orchestrator.endpoints.server_log import ServerLog
from orchestrator.endpoints.worker_place import UnixPlace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from orchestrator.domain.policy import Policy
    from orchestrator.endpoints.worker_place import WorkerPlace

_BATCH = 32  # inputs in one request, unless the policy says otherwise
_BATCH_OF_QUICK = 128  # the worker groups inputs of similar length: more inputs mean less padding (6 to 20 % faster)
_BATCH_TO_TUNE = 512  # the same on an accelerator, which has room for more than 128 inputs in one call
_QUICK = frozenset({"feature-extraction", "fill-mask", "text-classification", "token-classification"})
_LABELS = frozenset({"text-classification", "sentiment-analysis"})


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

    def worker(self, place: WorkerPlace) -> LocalControl:
        """Return the control plane of one worker, which is reached at this place."""
        return LocalControl(
            WorkerStart(
                name=self.name,
                model=self.model,
                log=self.log(),
                command=partial(_command, self),
                environment=partial(environment, self),
                install_timeout=self.install_timeout if self.install_requirements else None,
                parameters=self.parameters,
                limits=partial(self.limits, shared=self.seat is not None),
                bare=self.bare,
            ),
            place,
        )

    def limits(self, info: Mapping[str, object], policy: Policy, *, shared: bool) -> Limits:
        """Return how many inputs one request may carry.

        `info`: what the worker's health route says. `shared`: several workers share the items.
        """
        task, declared = self.task, info.get("max_batch_size")
        usual = declared if isinstance(declared, int) else _BATCH_OF_QUICK if task in _QUICK else _BATCH
        if policy.batch_size == "auto" and task in _QUICK and not str(info.get("device", "cpu")).startswith("cpu"):
            usual = _BATCH_TO_TUNE
        # several workers share smaller batches more evenly, and a handler does not group inputs by length
        neighbours = shared or self.local_model.has_handler
        return Limits(policy.batch_size if isinstance(policy.batch_size, int) else usual, neighbours=neighbours)

    @asynccontextmanager
    async def control(self) -> AsyncIterator[LocalControl | MemberGroup[LocalControl]]:
        """Create a private folder for the workers' sockets. The workers and the folder are gone when the block ends."""
        workers = await anyio.to_thread.run_sync(self.workers)
        folder = Path(await anyio.to_thread.run_sync(tempfile.mkdtemp))  # mode 0700: no other user can send requests
        controls = [worker.worker(UnixPlace(str(folder / f"socket{number}"))) for number, worker in enumerate(workers)]
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
