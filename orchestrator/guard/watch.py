"""The guard: waits for the orchestrator's death, then pays its debts. Standard library only, so that it stays small.

The process PARENT starts it as `python watch.py PARENT LEDGER COMMAND...`, with a pipe as its standard input. If the
guard reads DISMISSED, all is well and it exits. If it reads ACT, if the pipe ends without a message, or if the parent
dies or is stopped (Ctrl-Z) for a minute, it runs COMMAND until that succeeds. A line of JSON on the pipe is the latest
debt; COMMAND receives it in case the ledger is gone. Until COMMAND has succeeded, and after the guard has given up,
LEDGER.guard-PID holds that debt and the error of the latest try.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time

sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from orchestrator.parent import readable

TYPE_CHECKING = False  # the module of that name would cost more than this file
if TYPE_CHECKING:
    from collections.abc import Iterator

TRIES = 5000  # for about a week: the ledger may be locked, or its disk full, for a long time
FIRST_WAIT = 5.0  # seconds before the first repetition, a little more before every other
LONGEST_WAIT = 120.0
STOPPED_FOR = 60.0  # seconds: longer than other processes take a silent one for alive
LOOK = 5.0
DISMISSED, ACT = b"well\n", b"act\n"


def main() -> int:
    """Watch, and act at most once."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)  # they are for the orchestrator, which then pauses the endpoint itself
    with contextlib.suppress(OSError):  # the parent has died meanwhile: it may have had another guard before us
        os.write(1, b"watching\n")
    os.close(1)
    said = _heard(int(sys.argv[1]))
    if said.endswith(DISMISSED):
        return 0
    debts = [line.decode() for line in said.rpartition(b"\n")[0].split(b"\n") if line.startswith(b"{")]
    command = [*sys.argv[3:], *(["--debt", debts[-1]] if debts else [])]
    trace = f"{sys.argv[2]}.guard-{os.getpid()}"
    for number in range(TRIES):
        with _written(trace, debts[-1] if debts else "") as errors:
            done = subprocess.run(
                command, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors
            )
        if done.returncode == 0:
            with contextlib.suppress(OSError):
                os.unlink(trace)
            return 0
        time.sleep(min(FIRST_WAIT * (number + 1), LONGEST_WAIT))
    return 1


@contextlib.contextmanager
def _written(trace: str, debt: str) -> "Iterator[int]":
    """Open the file for a try's errors: the trace, after the debt, or the null device if it cannot be written."""
    try:
        file = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    except OSError:
        yield subprocess.DEVNULL
        return
    try:
        with contextlib.suppress(OSError):  # the disk may be full
            os.write(file, debt.encode() + b"\n")
        yield file
    finally:
        os.close(file)


def _heard(parent: int) -> bytes:
    """Return everything the orchestrator sent until its last message or its death, or until it was stopped for long."""
    said, last_seen_running = b"", time.monotonic()
    while (ready := readable(parent, [0], time.monotonic() + LOOK)) is not None:
        if not _is_stopped(parent):
            last_seen_running = time.monotonic()
        elif time.monotonic() - last_seen_running > STOPPED_FOR:
            break
        if ready and not (more := os.read(0, 4096)):
            break
        said += more if ready else b""
        if said.endswith((DISMISSED, ACT)):
            break
    return said


def _is_stopped(process: int) -> bool:
    """Whether a process is stopped by a signal, as by Ctrl-Z; False where that is not known."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"T"
    except (OSError, IndexError):
        return False


if __name__ == "__main__":
    sys.exit(main())
