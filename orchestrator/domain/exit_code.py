"""What the command's exit code says, to a shell and to the processes that start the command themselves."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the command's exit code says."""

    COMPLETED = 0
    FAILED = 1
    USAGE = 2
    DISCARDED = 3
    STOPPED = 4
    INTERRUPTED = 130


EXIT_CODES = {  # as `--help` and README explain them
    ExitCode.COMPLETED: "every item completed",
    ExitCode.FAILED: "the run failed",
    ExitCode.USAGE: "usage or configuration",
    ExitCode.DISCARDED: "finished, some items discarded",
    ExitCode.STOPPED: "stopped, run again to continue",
    ExitCode.INTERRUPTED: "interrupted by a signal, run again to continue",
}
