"""The supervisor by itself: how it ends, and that nothing it started is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from orchestrator.endpoints import supervisor as supervisor_module
from tests.commands import until

if TYPE_CHECKING:
    from collections.abc import Sequence

SUPERVISOR = str(supervisor_module.__file__)
PYTHON = (sys.executable, "-c")
linux = pytest.mark.skipif(sys.platform != "linux", reason="what only Linux's kernel does")


def supervised(command: Sequence[str], grace: float = 5.0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, SUPERVISOR, str(grace), str(os.getpid()), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def end_of(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Tell it to end; how it did, and what it said."""
    out, _ = process.communicate(timeout=30)
    return process.returncode, out


def own_end_of(process: subprocess.Popen[str]) -> tuple[int, str]:
    """How it ended by itself, and what it said."""
    process.wait(30)
    return end_of(process)


def started(process: subprocess.Popen[str], count: int) -> list[psutil.Process]:
    """What it has started, once these are so many."""
    family = psutil.Process(process.pid)
    until(lambda: len(family.children(recursive=True)) >= count)
    found: list[psutil.Process] = family.children(recursive=True)
    return found


def test_it_ends_as_the_server_did() -> None:
    assert own_end_of(supervised(["sh", "-c", "echo words; exit 7"])) == (7, "words\n")
    assert own_end_of(supervised(["sh", "-c", "exit 0"])) == (0, "")
    assert own_end_of(supervised(["sh", "-c", "kill -SEGV $$"])) == (-signal.SIGSEGV, "")
    assert own_end_of(supervised(["sh", "-c", "kill -KILL $$"])) == (-signal.SIGKILL, "")
    assert own_end_of(supervised(["./no-such-program"])) == (
        127,
        "cannot run ./no-such-program: No such file or directory\n",
    )


def test_the_server_has_empty_standard_input_and_default_signal_handlers() -> None:
    code = "import signal, sys; print(sys.stdin.read() == '', signal.getsignal(signal.SIGHUP) is signal.SIG_DFL)"
    process = supervised([*PYTHON, code])
    assert own_end_of(process) == (0, "True True\n")


def test_the_end_of_the_supervisors_input_ends_the_server() -> None:
    process = supervised(["sleep", "600"])
    (server,) = started(process, 1)
    assert end_of(process)[0] == -signal.SIGTERM
    assert not psutil.pid_exists(server.pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_supervisor_ends_the_server(number: signal.Signals) -> None:
    process = supervised(["sleep", "600"])
    (server,) = started(process, 1)
    process.send_signal(number)
    assert process.wait(30) == -signal.SIGTERM
    assert not psutil.pid_exists(server.pid)
    end_of(process)


def test_a_slow_server_has_the_grace_period_and_one_that_ignores_sigterm_is_killed() -> None:
    ready = "import signal, time, sys; signal.signal(signal.SIGTERM, {}); print('ready', flush=True); time.sleep(600)"
    polite = supervised([*PYTHON, ready.format("lambda *_: (time.sleep(0.3), sys.exit(5))")], grace=60.0)
    assert polite.stdout is not None
    assert polite.stdout.readline() == "ready\n"
    assert end_of(polite)[0] == 5
    deaf = supervised([*PYTHON, ready.format("signal.SIG_IGN")], grace=0.3)
    assert deaf.stdout is not None
    assert deaf.stdout.readline() == "ready\n"
    begun = time.monotonic()
    assert end_of(deaf)[0] == -signal.SIGKILL
    assert time.monotonic() - begun >= 0.3


def test_processes_that_a_server_leaves_behind_end_with_it() -> None:
    process = supervised(["sh", "-c", "sleep 600 & sleep 601 & read line; exit 3"])
    assert own_end_of(process)[0] == 3
    process = supervised(["sh", "-c", "sleep 600 & sleep 601 & wait"])
    family = started(process, 3)
    end_of(process)
    assert not any(psutil.pid_exists(one.pid) for one in family)


@linux
def test_so_do_processes_in_a_session_of_their_own() -> None:
    process = supervised(["sh", "-c", "setsid sleep 600 & sh -c 'setsid sleep 601 &' ; wait"])
    family = started(process, 3)
    end_of(process)
    assert not any(psutil.pid_exists(one.pid) for one in family)


@linux
def test_the_server_does_not_outlive_a_killed_supervisor() -> None:
    process = supervised(["sleep", "600"])
    (server,) = started(process, 1)
    process.kill()
    until(lambda: not psutil.pid_exists(server.pid) or server.status() == psutil.STATUS_ZOMBIE)
    end_of(process)


def test_it_needs_only_the_standard_library() -> None:
    command = [sys.executable, "-I", "-S", SUPERVISOR, "1", str(os.getpid()), "true"]
    assert subprocess.run(command, stdin=subprocess.DEVNULL, check=False, cwd=Path("/")).returncode in {0, -15}
