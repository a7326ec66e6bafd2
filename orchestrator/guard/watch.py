"""The guard: waits for the orchestrator's death, then has its debts paid. Standard library only, so that it stays tiny.

Started as `python watch.py COMMAND...` with a pipe as its standard input, whose other side only the orchestrator holds.
A word on it means that all is well; its end without a word, that the orchestrator died. Then COMMAND is run until it
succeeds.
"""

import signal
import subprocess
import sys
import time

TRIES = 60
PATIENCE = 5.0  # seconds before the first repetition, a little more before every other
LONGEST = 120.0


def main() -> int:
    """Watch, and act at the most once."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)  # they are for the orchestrator, which then pauses the endpoint itself
    sys.stdout.write("watching\n")
    sys.stdout.flush()
    sys.stdout.close()
    if sys.stdin.buffer.read():
        return 0
    for number in range(TRIES):
        done = subprocess.run(  # noqa: S603 - the orchestrator's own command
            sys.argv[1:], check=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if done.returncode == 0:
            return 0
        time.sleep(min(PATIENCE * (number + 1), LONGEST))
    return 1


if __name__ == "__main__":
    sys.exit(main())
