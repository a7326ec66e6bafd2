"""The exit codes of the command, for shells and for processes that start the command."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit code of the command."""

    COMPLETED = 0
    FAILED = 1
    USAGE = 2
    DISCARDED = 3
    STOPPED = 4
    INTERRUPTED = 130


EXIT_CODES = {  # the explanations in `--help` and README
    ExitCode.COMPLETED: "every item completed",
    ExitCode.FAILED: "the run failed",
    ExitCode.USAGE: "usage or configuration",
    ExitCode.DISCARDED: "finished, some items discarded",
    ExitCode.STOPPED: "stopped, run again to continue",
    ExitCode.INTERRUPTED: "interrupted by a signal, run again to continue",
}
