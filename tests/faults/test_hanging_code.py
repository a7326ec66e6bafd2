"""Code of a job that forks, hangs, or never yields does not keep an endpoint awake."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.commands import rows, until
from tests.faults.daemons import children, executes

if TYPE_CHECKING:
    from tests.commands import Workplace

pytestmark = pytest.mark.unmeasured

POOL = """
from concurrent.futures import ProcessPoolExecutor
import signal, time
from orchestrator.endpoints import CommandEndpoint
pool = None

def work(answer):
    open({began!r}, 'a').close()
    time.sleep(600)

def parse(answer):
    global pool
    pool = pool or ProcessPoolExecutor(2)
    return pool.submit(work, answer).result()
"""
HANGS = {
    "sleeps": "time.sleep(600)",
    "is busy": "while True: pass",
    "catches everything": "while True:\n        try: time.sleep(600)\n        except BaseException: pass",
    "is in arithmetic": "7 ** 10**9",  # holds the interpreter lock, but handles signals
    "is in C": "ctypes.PyDLL(None).sleep(600)",  # holds the interpreter lock
    "is in C that lets others run": "[ctypes.CDLL(None).sleep(600) for _ in range(600)]",
}
HANG = """
import ctypes, time
from orchestrator.endpoints import CommandEndpoint

def parse(answer):
    open({began!r}, 'a').close()
    {hang}
"""


class Rig:
    """A job at a server that commands wake and pause: they write a file."""

    def __init__(self, workplace: Workplace) -> None:
        self.workplace = workplace
        self.began = workplace.folder / "began"
        self._state = workplace.folder / "state"
        self._state.write_text("stopped\n")
        workplace.write_rows(rows(range(20)))

    def job(self, prelude: str, **values: str) -> Path:
        state = str(self._state)
        commands = f"resume=['sh', '-c', 'echo running > {state}'], state=['cat', {state!r}], "
        commands += f"pause=['sh', '-c', 'echo stopped > {state}'], look_every=0.1"
        return self.workplace.job(
            prelude=prelude.format(began=str(self.began), **values),
            parse="parse",
            endpoint=f"CommandEndpoint('rig', {self.workplace.url!r}, {commands})",
            policy="concurrency=4",
        )

    @property
    def awake(self) -> bool:
        return self._state.read_text() == "running\n"


@pytest.fixture
def rig(workplace: Workplace) -> Rig:
    return Rig(workplace)


def test_a_process_forked_by_parse_keeps_nothing_awake_after_kill_9_and_ends(rig: Rig) -> None:
    with rig.workplace.start("run", rig.job(POOL)) as running:
        until(rig.began.exists)
        assert rig.awake
        os.kill(running.pid, signal.SIGKILL)
        until(lambda: not rig.awake)
        until(lambda: not rig.workplace.processes())


def test_a_process_forked_by_parse_handles_signals_normally(rig: Rig) -> None:
    with rig.workplace.start("run", rig.job(POOL)) as running:
        until(rig.began.exists)
        forked = [one for one in psutil.Process(running.pid).children() if not _other(one)]
        assert forked
        for one in forked:
            one.terminate()
        _, left = psutil.wait_procs(forked, 20)
        assert not left
        ended = running.end()
        assert ended.code in {1, 3, 4}
        assert "interrupted" not in ended.err  # as our own handler reports it
    assert not rig.awake


def _other(process: psutil.Process) -> bool:
    """Whether it is a separate program."""
    return any("watch.py" in word for word in process.cmdline())


@pytest.mark.parametrize("hang", [name for name in HANGS if name != "is in C"])
def test_two_signals_end_a_run_whose_parse_never_returns(rig: Rig, hang: str) -> None:
    with rig.workplace.start("run", "--quiet", rig.job(HANG, hang=HANGS[hang])) as running:
        until(rig.began.exists)
        assert rig.awake
        running.process.send_signal(signal.SIGTERM)
        until(lambda: not _pending(running.pid))
        running.process.send_signal(signal.SIGTERM)
        ended = running.end(30)
        assert ended.code in {130, -signal.SIGALRM}
        until(lambda: not rig.awake)
    if ended.code == 130:
        assert "the job's code did not stop" in ended.line
    until(lambda: not rig.workplace.processes())


def _pending(pid: int) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd", "ShdPnd"))]
    return any(mask >> (signal.SIGTERM - 1) & 1 for mask in masks)


@pytest.mark.parametrize("hang", ["sleeps", "is in C"])
def test_two_signals_end_a_daemon_whose_child_hangs_in_parse(rig: Rig, hang: str) -> None:
    job = rig.job(HANG, hang=HANGS[hang])
    rig.workplace.run("submit", job)
    with rig.workplace.start("serve") as daemon:
        until(rig.began.exists)
        assert rig.awake
        assert children(daemon)
        daemon.send(signal.SIGTERM)
        daemon.says("stopping")
        daemon.send(signal.SIGTERM)
        assert daemon.end(40).code == 0
        until(lambda: not rig.awake)
    assert not any(executes(one) for one in rig.workplace.processes())
    until(lambda: not rig.workplace.processes())
    assert rig.workplace.count("run", "due_at IS NOT NULL AND holder IS NULL") == 1
