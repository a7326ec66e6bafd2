"""CommandHook: a command of the user's, run without a shell, with the report on its standard input."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from orchestrator.domain.command_line import check_arguments
from orchestrator.domain.notification import NotificationFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyio.abc import Process

    from orchestrator.domain.notification import Notification

_STDERR = 2  # the command's output goes to our standard error, because our standard output belongs to --json
_MOST = 65536  # bytes of that output
_REST = 1.0  # seconds to read the rest after the command has ended: its children may hold the pipe open for ever
_BURIAL = 5.0  # seconds within which a killed process is gone


@dataclass(frozen=True, slots=True)
class CommandHook:
    """Runs `argv`. The hook counts as notified if it exits with 0 within `timeout` seconds; then its group is killed.

    The command gets the report as JSON on its standard input, and ORCHESTRATOR_RUN, _JOB, _STATE and _EVENT in its
    environment.
    """

    argv: Sequence[str] = field(repr=False)  # may hold secrets
    timeout: float = 60.0

    def __post_init__(self) -> None:
        check_arguments(self.argv, "a hook's command", "['notify', '--done']")

    def describe(self) -> str:
        """Return the program's name only, because its arguments may hold secrets."""
        return f"command {Path(self.argv[0]).name}"

    async def notify(self, notification: Notification) -> None:
        """Run the command to its end. Raises `NotificationFailed` if it cannot start, fails, or takes too long."""
        about = {
            "RUN": notification.run,
            "JOB": notification.job,
            "STATE": notification.state,
            "EVENT": notification.event,
        }
        environment = os.environ | {f"ORCHESTRATOR_{name}": str(value) for name, value in about.items()}
        ours, given = os.pipe()
        os.set_blocking(ours, False)
        try:
            process = await anyio.open_process(
                list(self.argv),
                stdin=subprocess.PIPE,
                stdout=given,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            os.close(ours)
            raise NotificationFailed(f"it cannot be run: {error.strerror or error}") from error
        finally:
            os.close(given)
        code: int | None = None
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._hear, ours)
                with anyio.move_on_after(self.timeout):
                    await _feed(process, notification.body)
                    code = await process.wait()
                group.cancel_scope.deadline = anyio.current_time() + _REST
        finally:
            with anyio.CancelScope(shield=True):
                await _bury(process)
        if code is None:
            raise NotificationFailed(f"it did not end within {self.timeout:g} s, so it was killed")
        if code != 0:
            raise NotificationFailed(f"it ended with exit code {code}")

    async def _hear(self, pipe: int) -> None:
        """Forward the command's output, up to a limit."""
        size = 0
        try:
            while True:
                await anyio.wait_readable(pipe)
                said = os.read(pipe, _MOST)
                if not said:
                    return
                if size < _MOST:
                    await to_thread.run_sync(_pass_on, said[: _MOST - size])
                size += len(said)
        finally:
            os.close(pipe)
            if size > _MOST:
                more = f"\n[{self.describe()} said {size:,} bytes; these were the first {_MOST:,}]\n"
                with anyio.CancelScope(shield=True):
                    await to_thread.run_sync(_pass_on, more.encode())


def _pass_on(said: bytes) -> None:
    with suppress(OSError):
        os.write(_STDERR, said)


async def _feed(process: Process, body: bytes) -> None:
    assert process.stdin is not None
    with suppress(anyio.BrokenResourceError, BrokenPipeError, ConnectionResetError):  # the command need not read it
        await process.stdin.send(body)
    with suppress(BrokenPipeError, ConnectionResetError):
        await process.stdin.aclose()


async def _bury(process: Process) -> None:
    """Kill whatever is still running."""
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with anyio.move_on_after(_BURIAL):
            await process.wait()
