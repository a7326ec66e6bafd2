"""FLOOR 6: the command line; one verb, one file."""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """The `orchestrator` command."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # a shell's background process keeps ignoring Ctrl-C
            signal.signal(number, _leave_at_once)
    from orchestrator.cli.app import app
    from orchestrator.cli.output import outlive_readers

    outlive_readers()
    app()


def _leave_at_once(_number: int, _frame: object) -> None:
    """Before anything has begun, there is nothing to put in order."""
    sys.stderr.write("orchestrator: interrupted; run the same command again to continue\n")
    sys.stderr.flush()
    os._exit(130)


__all__ = ["main"]
