"""A real Ray cluster on this machine, in processes of its own that are all gone at the end."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from tests.commands import until

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = Path(__file__).with_name("ray_program.py")
ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # its name notwithstanding: everything stays on 127.0.0.1
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # Ray's own default is 15, with which a worker hardly runs on a busy machine
}


@dataclass(slots=True)
class Nodes:
    """The nodes of the cluster, whose head has no room for workers."""

    process: subprocess.Popen[str]
    address: str
    room: dict[int, int] = field(default_factory=dict)  # CPUs of each node

    def add(self, cpus: int) -> int:
        number: int = self.tell({"add": cpus})["node"]
        self.room[number] = cpus
        return number

    def kill(self, number: int) -> None:
        del self.room[number]
        self.tell({"kill": number})

    def tell(self, order: dict[str, Any]) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@contextmanager
def one_cluster_at_a_time() -> Iterator[None]:
    """Wait until no other process of this user has a cluster on this machine: each takes minutes of CPU and 2 GB."""
    with (Path(tempfile.gettempdir()) / f"ray-of-the-tests-{os.getuid()}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def ray_cluster() -> Iterator[Nodes]:
    """Yield a cluster with a head only."""
    with one_cluster_at_a_time(), _cluster() as nodes:
        yield nodes


@contextmanager
def _cluster() -> Iterator[Nodes]:
    folder = tempfile.mkdtemp(prefix="ray-")  # a short path: sockets are in it
    (Path(folder) / "ray").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-P", str(PROGRAM), folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **ENVIRONMENT, "RAY_TMPDIR": folder, "XDG_STATE_HOME": folder},
    )
    try:
        assert process.stdout is not None
        yield Nodes(process, json.loads(process.stdout.readline())["address"])
    finally:
        process.communicate()
        until(lambda: not processes_in(folder))
        shutil.rmtree(folder)


def processes_in(folder: str) -> list[psutil.Process]:
    """Return the processes of the cluster with this folder: its servers, and the workers that Ray has started."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(folder in word for word in process.cmdline()) or process.environ().get("RAY_TMPDIR") == folder:
                found.append(process)
    return [process for process in found if process.pid != os.getpid()]


def answering(model: Path) -> dict[int, psutil.Process]:
    """Return the living worker processes of this model."""
    found = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if "orchestrator.worker" in process.cmdline() and f"--model={model}" in process.cmdline():
                found[process.pid] = process
    return found
