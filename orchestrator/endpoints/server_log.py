"""The log of a server that we run: what it writes, in a file of the user's log folder; the last three are kept."""

from __future__ import annotations

import os
import re
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import anyio
import platformdirs
from anyio import to_thread

from orchestrator.domain.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path
    from typing import BinaryIO

KEPT = 3
LARGE = 10_000_000  # bytes from which on the next start begins a new file
_TAIL = 65_536  # last bytes of one start in which the reason for its end is looked for
_LAST_LINE = 4096
_POLL = 0.25  # seconds
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")  # colours, cursor moves


@dataclass(frozen=True, slots=True)
class ServerLog:
    """One file, and the older ones beside it: NAME.log, NAME.log.1, NAME.log.2."""

    path: Path

    @classmethod
    def of(cls, name: str, replica: int = 1) -> ServerLog:
        """Of the endpoint with this name; replicas are counted from 1."""
        folder = platformdirs.user_log_path("orchestrator", appauthor=False)
        file = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "server"
        return cls(folder / f"{file}{'' if replica == 1 else f'-{replica}'}.log")

    def begin(self, title: str) -> tuple[int, int]:
        """Open it for a server that starts: its descriptor, and where in the file this server's words begin.

        Only the user can read it: servers write down what they are asked. `UsageError` where it cannot be written.
        """
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._rotate()
            file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise UsageError(f"the log {self.path} cannot be written: {error.strerror}") from error
        size = os.fstat(file).st_size
        line = "\n" if size and os.pread(file, 1, size - 1) != b"\n" else ""  # the last one was cut off
        os.write(file, f"{line}--- {datetime.now(UTC):%Y-%m-%d %H:%M:%SZ} {' '.join(title.split())}\n".encode())
        return file, os.fstat(file).st_size

    def tail(self, since: int, most: int = _TAIL) -> str:
        """Its last characters, of what was written since; without colours."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(since if since <= size else 0, size - most))
                return _ESCAPES.sub("", file.read(most).decode(errors="replace"))
        except OSError:  # somebody has tidied up
            return ""

    def last_line(self, since: int) -> str:
        """The last line that says anything, at most 120 characters of it. Progress bars write over their line."""
        lines = re.split(r"[\r\n]+", self.tail(since, _LAST_LINE))
        return next((line.strip()[:120] for line in reversed(lines) if line.strip()), "")

    async def lines(self, tail: int | None = None, *, follow: bool = False) -> AsyncGenerator[str, None]:
        """Its lines, or the last ones, and with `follow` those to come. `UsageError` where there is no log yet."""
        try:
            file: BinaryIO = await to_thread.run_sync(self.path.open, "rb")
        except OSError as error:
            raise UsageError(f"there is no log {self.path}: {error.strerror}") from error
        rest = b""
        try:
            found = await to_thread.run_sync(_lines_of, file, tail)
            while True:
                for line in found:
                    rest += line
                    if rest.endswith(b"\n"):
                        yield rest.rstrip(b"\r\n").decode(errors="replace")
                        rest = b""
                if not follow:
                    break
                await anyio.sleep(_POLL)
                file = await to_thread.run_sync(self._newest, file)
                found = await to_thread.run_sync(_lines_of, file, None)
            if rest:
                yield rest.decode(errors="replace")
        finally:
            file.close()

    def _newest(self, file: BinaryIO) -> BinaryIO:
        """The same file, or the one that a server has begun since."""
        try:
            if os.path.sameopenfile(file.fileno(), (newest := self.path.open("rb")).fileno()):
                newest.close()
                return file
        except OSError:
            return file
        if file.read(1):  # it has not been read to its end
            file.seek(-1, os.SEEK_CUR)
            newest.close()
            return file
        file.close()
        return newest

    def _rotate(self) -> None:
        if not self.path.exists() or self.path.stat().st_size < LARGE:
            return
        for number in range(KEPT - 1, 0, -1):
            older = self.path if number == 1 else self._numbered(number - 1)
            if older.exists():
                older.replace(self._numbered(number))

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")


def _lines_of(file: BinaryIO, tail: int | None) -> deque[bytes]:
    """What is there to be read, or its last lines."""
    return deque(file, maxlen=tail)
