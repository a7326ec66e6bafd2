"""A process that has already imported the command, and forks to run it, or a script: most of a start is imports.

Each fork is a real process with its own pid, environment, folder, signals, and interpreter exit. `Forked` is used like
`subprocess.Popen`.
"""

from __future__ import annotations

import atexit
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# variables that an interpreter, a library or our modules read once, when loaded
_READ_AT_START = ("PYTHON", "LD_", "MALLOC_", "OMP_", "FORCE_COLOR")
_NUMBER = 4  # bytes
_turn = threading.Lock()
_measuring: dict[str, str] = {}  # the variables that make a Python process measure its coverage


def can_become(env: Mapping[str, str]) -> bool:
    """Whether a fork with this environment equals a fresh start."""
    return hasattr(os, "pidfd_open") and not any(name.startswith(_READ_AT_START) for name in env)


class Forked:
    """A process of the nursery, with its output in pipes. Like `subprocess.Popen` with `text=True`."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str], cwd: Path, script: Path | None = None) -> None:
        self.returncode: int | None = None
        (out, out_end), (err, err_end), (status, status_end) = os.pipe(), os.pipe(), os.pipe()
        self.stdout, self.stderr, self._status = os.fdopen(out), os.fdopen(err), os.fdopen(status, "rb")
        wish = {"arguments": arguments, "env": dict(env), "cwd": str(cwd), "script": str(script or "")}
        said = json.dumps(wish).encode()
        with _turn:
            nursery = _nursery(os.getpid(), measured=bool(_measuring))
            socket.send_fds(nursery, [len(said).to_bytes(_NUMBER)], [out_end, err_end, status_end])
            nursery.sendall(said)
            self.pid = int.from_bytes(nursery.recv(_NUMBER))
        for end in (out_end, err_end, status_end):
            os.close(end)

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._status, selectors.EVENT_READ)
                if not selector.select(timeout):
                    raise subprocess.TimeoutExpired("orchestrator", timeout or 0.0)
            with self._status:
                said = self._status.read(_NUMBER)
            self.returncode = os.waitstatus_to_exitcode(int.from_bytes(said))
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Return the rest of its output, once all processes that share it have ended. A closed pipe gives nothing."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            said: dict[TextIO, bytes] = {self.stdout: b"", self.stderr: b""}
            for stream in said:
                if not stream.closed:
                    selector.register(stream, selectors.EVENT_READ, stream)
            while selector.get_map():
                ready = selector.select(None if deadline is None else max(0.0, deadline - time.monotonic()))
                if not ready:
                    raise subprocess.TimeoutExpired("orchestrator", timeout or 0.0)
                for key, _ in ready:
                    if part := os.read(key.fd, 1 << 16):
                        said[key.data] += part
                    else:
                        selector.unregister(key.fileobj)
                        key.data.close()
        self.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return said[self.stdout].decode(), said[self.stderr].decode()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def alone_measures_coverage() -> None:
    """Let no other child process measure coverage: it costs each as much CPU as a short command takes."""
    _measuring.update({name: os.environ.pop(name) for name in [*os.environ] if name.startswith("COVERAGE_")})


@cache
def _nursery(_pid: int, *, measured: bool) -> socket.socket:
    """Return the nursery for children that measure coverage, or for others; it ends with this process."""
    ours, its = socket.socketpair()
    env = _measuring if measured else {}
    nursery = subprocess.Popen(
        [sys.executable, "-P", str(Path(__file__).with_name("nursery_program.py")), str(its.fileno())],
        env=env | {"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[its.fileno()],
        preexec_fn=as_in_a_terminal,  # noqa: PLW1509 - this process has no other threads that matter
    )
    its.close()

    @atexit.register
    def end() -> None:
        ours.close()
        nursery.wait()

    return ours


def as_in_a_terminal() -> None:
    """Restore signals: shells let background processes ignore SIGINT, nohup SIGHUP, and children inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
