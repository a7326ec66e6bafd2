"""A run that a daemon has executed by a child process of its own, so that no job file can block or kill the daemon."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from orchestrator.domain.errors import LedgerError
from orchestrator.engine.tasks import task_group
from orchestrator.run_log import keep_small, output_log

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anyio.abc import Process

    from orchestrator.domain.queue import Claim
    from orchestrator.engine.stop import Stop

_PATIENCE = 90.0  # seconds that a child has to stop in good order, pausing included, before it is told to hurry
_HURRY = 10.0  # seconds that it then has before it is killed
_LOOK = 1.0  # seconds between two looks at its size
_AGAIN = 1.0  # seconds between two words to hurry


async def executed(ledger: Path, say: Callable[[str], None], claim: Claim, stop: Stop) -> int:
    """Have a run executed by a child, which stops when this process dies; gives its exit code.

    The child is told to stop once `stop` is requested, and to hurry at its deadline. However this ends, the child has
    ended: it pauses its endpoints itself.
    """
    log = output_log(ledger, claim.run_id)
    command = [sys.executable, "-m", "orchestrator", "--db", str(ledger), "execute", str(claim.run_id)]
    file = await to_thread.run_sync(_opened, log)
    try:
        process = await anyio.open_process(
            [*command, "--claimed-by", str(claim.process_id), "--parent", str(os.getpid())],
            stdin=subprocess.PIPE,  # closes with us, however we end
            stdout=file,
            stderr=file,
            start_new_session=True,  # Ctrl-C is told to us, and we tell our children
        )
    finally:
        os.close(file)
    try:
        say(f"run {claim.run_id} is executed by process {process.pid}, which writes to {log}")
        async with task_group() as helpers:
            helpers.start_soon(_stop, process, stop)
            helpers.start_soon(_keep_small, log)
            code = await process.wait()
            helpers.cancel_scope.cancel()
    finally:
        await _see_ended(process)
    await to_thread.run_sync(keep_small, log)
    return code


async def _keep_small(log: Path) -> None:
    while True:
        await anyio.sleep(_LOOK)
        await to_thread.run_sync(keep_small, log)


async def _stop(process: Process, stop: Stop) -> None:
    """Tell it to stop when we are told, and to hurry when we are, or when it takes too long."""
    await stop.wait()
    _terminate(process)
    with stop.until_deadline():
        await anyio.sleep(_PATIENCE)
    await _hurried(process)


async def _hurried(process: Process) -> None:
    """Tell it again and again, since of two signals at once it may see only one; then kill it.

    The job's code may not give way. Where the child keeps an endpoint awake, its guard pauses that.
    """
    with anyio.move_on_after(_HURRY):
        while True:
            _terminate(process)
            await anyio.sleep(_AGAIN)
    with suppress(ProcessLookupError):
        process.kill()


def _terminate(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()


async def _see_ended(process: Process) -> None:
    """See the child ended, also when we are being torn down; one that hangs is killed, and its guard pauses for it."""
    with anyio.CancelScope(shield=True):
        if process.returncode is None:
            _terminate(process)
            with anyio.move_on_after(_PATIENCE):
                await process.wait()
        if process.returncode is None:
            async with task_group() as hurrying:
                hurrying.start_soon(_hurried, process)
                await process.wait()
                hurrying.cancel_scope.cancel()
        await process.aclose()


def _opened(log: Path) -> int:
    """Only the user can read it. `UsageError` where it cannot be written."""
    try:
        log.parent.mkdir(mode=0o700, exist_ok=True)
        return os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    except OSError as error:
        raise LedgerError(f"the log {log} cannot be written: {error.strerror}") from error
