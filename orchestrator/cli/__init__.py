"""The command line; one file per command."""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Run the `orchestrator` command."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # a shell's background process must keep ignoring Ctrl-C
            signal.signal(number, _leave_at_once)
    from orchestrator.cli.app import app
    from orchestrator.cli.output import outlive_readers

    outlive_readers()
    app()


def _leave_at_once(_number: int, _frame: object) -> None:
    """End the process without cleanup: nothing has begun yet."""
    sys.stderr.write("orchestrator: interrupted; run the same command again to continue\n")
    sys.stderr.flush()
    os._exit(130)


__all__ = ["main"]
