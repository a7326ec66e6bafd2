"""Run one of the user's commands without a shell and with a deadline. A command that misses it is killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import anyio

from orchestrator.domain.errors import EndpointSilent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyio.abc import Process

_KEPT = 16_384  # last bytes of each stream
_DRAIN = 0.25  # seconds to read the remaining output: processes that it started may keep the streams open for ever
_EXIT_WAIT = 5.0  # seconds within which a killed process is gone


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: its exit code, and the last 16 KiB of each stream."""

    code: int
    out: str
    err: str

    @property
    def last_words(self) -> str:
        """The last line of stderr, or else of stdout: at most 300 characters."""
        return last_line(self.err) or last_line(self.out) or "no output"


def last_line(text: str) -> str:
    """Return the first 300 characters of the last line that is not blank, or "" if there is none."""
    return next((line.strip()[:300] for line in reversed(text.splitlines()) if line.strip()), "")


def located(argv: Sequence[str]) -> tuple[str, ...] | None:
    """Return the command with its program as an absolute path, or None if there is no such program.

    The result can be run from any folder. Reads the disk.
    """
    program = shutil.which(argv[0])
    return None if program is None else (os.path.abspath(program), *argv[1:])


async def run(argv: Sequence[str], deadline: float) -> Ended:
    """Run the command to its end, with empty standard input.

    Raises `EndpointSilent` if it cannot start, or does not end in time. At the deadline or on cancellation, its process
    group is killed. Processes that a command leaves running when it ends by itself are left alone, but their output is
    no longer read.
    """
    with _Output() as out, _Output() as err:
        try:
            process = await anyio.open_process(
                argv, stdin=subprocess.DEVNULL, stdout=out.theirs, stderr=err.theirs, start_new_session=True
            )
        except OSError as error:
            raise EndpointSilent(f"`{argv[0]}` cannot be run: {error.strerror or error}") from error
        out.close_theirs()
        err.close_theirs()
        try:
            with anyio.move_on_after(deadline):
                return Ended(await _until_end(process, out, err), out.text, err.text)
        finally:
            with anyio.CancelScope(shield=True):
                await _kill(process)
    raise EndpointSilent(f"`{shown(argv)}` did not end within {deadline:g} s, so it was killed")


def shown(argv: Sequence[str]) -> str:
    """Return the command as text for messages, at most 200 characters."""
    line = " ".join(argv)
    return line if len(line) <= 200 else line[:199] + "…"


class _Output:
    """A pipe that we read ourselves: the event loop's would stay open while any process that was started holds it."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._ours, self.theirs = os.pipe()  # not inherited unless passed explicitly
        os.set_blocking(self._ours, False)

    @property
    def text(self) -> str:
        return self._kept.decode(errors="replace")

    async def read(self) -> None:
        """Read to the end, and keep the last bytes."""
        while True:
            await anyio.wait_readable(self._ours)
            chunk = os.read(self._ours, 65_536)
            if not chunk:
                return
            self._kept += chunk
            del self._kept[:-_KEPT]

    def close_theirs(self) -> None:
        if self.theirs >= 0:
            os.close(self.theirs)
            self.theirs = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close_theirs()
        os.close(self._ours)


async def _until_end(process: Process, *streams: _Output) -> int:
    async with anyio.create_task_group() as readers:
        for stream in streams:
            readers.start_soon(stream.read)
        code = await process.wait()
        readers.cancel_scope.deadline = anyio.current_time() + _DRAIN
    return code


async def _kill(process: Process) -> None:
    """Kill the process group if the process is still running."""
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with anyio.move_on_after(_EXIT_WAIT):
            await process.wait()
