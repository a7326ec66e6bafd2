"""Execute a run in a child process, so that no job file can block or kill the daemon."""

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
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from anyio.abc import Process

    from orchestrator.domain.queue import Claim
    from orchestrator.engine.stop import Stop

_CLEAN_STOP = 90.0  # seconds that a child has to stop cleanly, including pauses, before it is told to hurry
_HURRY = 10.0  # seconds that it has after that before it is killed
_LOOK = 1.0  # seconds between two checks of the log's size
_AGAIN = 1.0  # seconds between two signals to hurry


async def executed(ledger: Path, settings: Sequence[str], say: Callable[[str], None], claim: Claim, stop: Stop) -> int:
    """Execute a run in a child process, which stops when this process dies; return its exit code.

    `settings`: the options with which it reads this process's settings.
    The child is told to stop once `stop` is requested, and to hurry at its deadline. It has always ended when this
    returns or raises; it pauses its endpoints itself.
    """
    log = output_log(ledger, claim.run_id)
    command = [sys.executable, "-m", "orchestrator", *settings, "--db", str(ledger), "execute", str(claim.run_id)]
    file = await to_thread.run_sync(_opened, log)
    try:
        process = await anyio.open_process(
            [*command, "--claimed-by", str(claim.process_id), "--parent", str(os.getpid())],
            stdin=subprocess.PIPE,  # closes when we end, however that happens
            stdout=file,
            stderr=file,
            start_new_session=True,  # Ctrl-C reaches only us, and we signal our children
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
    """Tell the child to stop when `stop` is requested, and to hurry at its deadline or if it takes too long."""
    await stop.wait()
    _terminate(process)
    with stop.until_deadline():
        await anyio.sleep(_CLEAN_STOP)
    await _hurried(process)


async def _hurried(process: Process) -> None:
    """Repeat the signal, since of two signals at once the child may see only one; then kill it.

    The job's code may block the child. If the child keeps an endpoint awake, its guard pauses it.
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
    """Wait until the child has ended, even if we are cancelled; if it hangs, kill it, and its guard pauses for it."""
    with anyio.CancelScope(shield=True):
        if process.returncode is None:
            _terminate(process)
            with anyio.move_on_after(_CLEAN_STOP):
                await process.wait()
        if process.returncode is None:
            async with task_group() as hurrying:
                hurrying.start_soon(_hurried, process)
                await process.wait()
                hurrying.cancel_scope.cancel()
        await process.aclose()


def _opened(log: Path) -> int:
    """Open the log for appending, readable only by its user. Raises `LedgerError` if that fails."""
    try:
        log.parent.mkdir(mode=0o700, exist_ok=True)
        return os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    except OSError as error:
        raise LedgerError(f"the log {log} cannot be written: {error.strerror}") from error
