"""The guard: waits for the orchestrator's death, then has its debts paid. Standard library only, so that it stays tiny.

Started as `python watch.py PARENT LEDGER COMMAND...` by the process PARENT, with a pipe as its standard input.
DISMISSED on it means that all is well; ACT, its end without a word, and the parent's death, that the debts are ours.
Then COMMAND is run until it succeeds. A line of JSON on it is the latest debt, which COMMAND is given, in case that the
ledger is gone. Until it has succeeded, LEDGER.guard-PID has that debt and what the latest try said; so it has once we
give up.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time

sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))  # noqa: PTH100, PTH120 - pathlib costs more than the rest of this file
from orchestrator.parent import readable

TYPE_CHECKING = False  # the module of that name would cost more than this file
if TYPE_CHECKING:
    from collections.abc import Iterator

TRIES = 5000  # for about a week: the ledger may be locked, or its disk full, for a long time
PATIENCE = 5.0  # seconds before the first repetition, a little more before every other
LONGEST = 120.0
DISMISSED, ACT = b"well\n", b"act\n"


def main() -> int:
    """Watch, and act at the most once."""
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
            done = subprocess.run(  # noqa: S603 - the orchestrator's own command
                command, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors
            )
        if done.returncode == 0:
            with contextlib.suppress(OSError):
                os.unlink(trace)  # noqa: PTH108 - as above
            return 0
        time.sleep(min(PATIENCE * (number + 1), LONGEST))
    return 1


@contextlib.contextmanager
def _written(trace: str, debt: str) -> "Iterator[int]":
    """Where a try's errors go: into the trace, after the debt; nowhere, where that cannot be written."""
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
    """All that the orchestrator has said, until it has said its last word or is gone."""
    said = b""
    while readable(parent, [0]) and (more := os.read(0, 4096)):
        said += more
        if said.endswith((DISMISSED, ACT)):
            break
    return said


if __name__ == "__main__":
    sys.exit(main())
