"""The guard: waits for the orchestrator's death, then has its debts paid. Standard library only, so that it stays tiny.

Started as `python watch.py PARENT COMMAND...` by the process PARENT, with a pipe as its standard input. DISMISSED on it
means that all is well; ACT, its end without a word, and the parent's death, that the debts are ours. Then COMMAND is
run until it succeeds. A line of JSON on it is the latest debt, which COMMAND is given, in case that the ledger is gone.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time

sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))  # noqa: PTH100, PTH120 - pathlib costs more than the rest of this file
from orchestrator.parent import readable

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
    command = [*sys.argv[2:], *(["--debt", debts[-1]] if debts else [])]
    for number in range(TRIES):
        done = subprocess.run(  # noqa: S603 - the orchestrator's own command
            command, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if done.returncode == 0:
            return 0
        time.sleep(min(PATIENCE * (number + 1), LONGEST))
    return 1


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
