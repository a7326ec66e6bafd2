"""One command of the user's: run without a shell, within a deadline, leaving nothing behind when that passes."""

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
_DRAIN = 0.25  # seconds after its end, for words still on the way: what it started may hold the streams for ever
_BURIAL = 5.0  # seconds in which a killed process is gone


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended. Its words are the last 16 KiB of each stream."""

    code: int
    out: str
    err: str

    @property
    def last_words(self) -> str:
        """The last line that it wrote, on stderr if there, at most 300 characters."""
        return last_line(self.err) or last_line(self.out) or "no words"


def last_line(text: str) -> str:
    """The last line that is not blank; "" where there is none."""
    return next((line.strip()[:300] for line in reversed(text.splitlines()) if line.strip()), "")


def located(argv: Sequence[str]) -> tuple[str, ...] | None:
    """The command with its program by absolute path, so that it is found from anywhere; None where there is none.

    Looks at the disk.
    """
    program = shutil.which(argv[0])
    return None if program is None else (os.path.abspath(program), *argv[1:])


async def run(argv: Sequence[str], deadline: float) -> Ended:
    """Run the command to its end, its standard input empty. `EndpointSilent` where it cannot start or does not end.

    When the deadline passes, and when we are cancelled, it is killed together with its process group. What a command
    that ended by itself has left running is left alone, but nobody reads any more what that writes.
    """
    with _Words() as out, _Words() as err:
        try:
            process = await anyio.open_process(
                argv, stdin=subprocess.DEVNULL, stdout=out.given, stderr=err.given, start_new_session=True
            )
        except OSError as error:
            raise EndpointSilent(f"`{argv[0]}` cannot be run: {error.strerror or error}") from error
        out.close_given()
        err.close_given()
        try:
            with anyio.move_on_after(deadline):
                return Ended(await _until_end(process, out, err), out.text, err.text)
        finally:
            with anyio.CancelScope(shield=True):
                await _bury(process)
    raise EndpointSilent(f"`{shown(argv)}` did not end within {deadline:g} s, so it was killed")


def shown(argv: Sequence[str]) -> str:
    """The command for a person, at most 200 characters."""
    line = " ".join(argv)
    return line if len(line) <= 200 else line[:199] + "…"


class _Words:
    """A pipe of our own: the event loop's would stay open as long as anything that the command started holds it."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._ours, self.given = os.pipe()  # neither is inherited but where it is asked for
        os.set_blocking(self._ours, False)

    @property
    def text(self) -> str:
        return self._kept.decode(errors="replace")

    async def read(self) -> None:
        """Read to the end, keep the last."""
        while True:
            await anyio.wait_readable(self._ours)
            chunk = os.read(self._ours, 65_536)
            if not chunk:
                return
            self._kept += chunk
            del self._kept[:-_KEPT]

    def close_given(self) -> None:
        if self.given >= 0:
            os.close(self.given)
            self.given = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close_given()
        os.close(self._ours)


async def _until_end(process: Process, *streams: _Words) -> int:
    async with anyio.create_task_group() as readers:
        for stream in streams:
            readers.start_soon(stream.read)
        code = await process.wait()
        readers.cancel_scope.deadline = anyio.current_time() + _DRAIN
    return code


async def _bury(process: Process) -> None:
    """End what still runs."""
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with anyio.move_on_after(_BURIAL):
            await process.wait()
