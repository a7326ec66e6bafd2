"""The command line; one file per command.

A command imports what it uses. `cli/app.py` lists the commands with one line of help each (a test compares them
with the commands' own help); `CommandOnCall` (`cli/on_call.py`) imports one when it is called, or when its
arguments are completed. A method of `App` imports its use case, an attribute of `Store` its module, and the
packages of kinds their names (`words.py`). pydantic checks settings only if there is a file. SQLAlchemy and Alembic
are imported only to make or upgrade a ledger. `tests/cli/test_imports.py` says what commands that only look must
not import, and `python -m bench.start --against CHECKOUT` compares what whole processes cost.
"""

from __future__ import annotations

import gc
import os
import signal
import sys

from orchestrator.descriptors import open_standard_streams


def main() -> None:
    """Run the `orchestrator` command."""
    open_standard_streams()
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # a shell's background process must keep ignoring Ctrl-C
            signal.signal(number, _leave_at_once)
    spare_the_collector()
    from orchestrator.cli.app import app
    from orchestrator.cli.output import outlive_readers

    outlive_readers()
    try:
        app()
    except SystemExit as end:
        from orchestrator.cli.leftovers import end_in_time

        end_in_time(end.code)
        raise


def spare_the_collector() -> None:
    """Let the garbage collector look less often: starting makes many objects of which few are ever garbage.

    A fan-out, too, creates and drops many small objects, which need no collector.
    """
    gc.set_threshold(50_000, 20, 100)


def _leave_at_once(_number: int, _frame: object) -> None:
    """End the process without cleanup: nothing has begun yet."""
    sys.stderr.write("orchestrator: interrupted; run the same command again to continue\n")
    sys.stderr.flush()
    os._exit(130)


__all__ = ["main", "spare_the_collector"]
