"""The log of a server that we run: its output, in a file in the user's log folder and two older ones."""

from __future__ import annotations

import os
import re
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import anyio
import platformdirs
from anyio import to_thread

from orchestrator.domain.errors import UsageError
from orchestrator.endpoints.log_rotation import at_rest, older, opened

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path
    from typing import BinaryIO

_TAIL = 65_536  # last bytes of one start that are searched for the reason of its end
_LAST_LINE = 4096
_POLL = 0.25  # seconds
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")  # colours, cursor moves


async def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class ServerLog:
    """A log of limited size: NAME.log, and the older files NAME.log.1 and NAME.log.2 beside it."""

    path: Path

    @classmethod
    def of(cls, name: str, replica: int = 1) -> ServerLog:
        """Return the log of the endpoint with this name; replicas are counted from 1."""
        folder = platformdirs.user_log_path("orchestrator", appauthor=False)
        file = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "server"
        return cls(folder / f"{file}{'' if replica == 1 else f'-{replica}'}.log")

    def begin(self, title: str) -> tuple[int, int]:
        """Open the log for a server that starts. Return its descriptor, and where in the file its output begins.

        Only the user can read the file, because servers log requests. Raises `UsageError` if it cannot be written.
        """
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = opened(self.path)
        except OSError as error:
            raise UsageError(f"the log {self.path} cannot be written: {error.strerror}") from error
        size = os.fstat(file).st_size
        line = "\n" if size and os.pread(file, 1, size - 1) != b"\n" else ""  # the last one was cut off
        os.write(file, f"{line}--- {datetime.now(UTC):%Y-%m-%d %H:%M:%SZ} {' '.join(title.split())}\n".encode())
        return file, os.fstat(file).st_size

    def tail(self, since: int, most: int = _TAIL) -> str:
        """Return the last `most` bytes of what was written since then, without terminal colours."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(since if since <= size else 0, size - most))
                return _ESCAPES.sub("", file.read(most).decode(errors="replace"))
        except OSError:  # the file was deleted
            return ""

    def last_line(self, since: int) -> str:
        """Return the last line that is not blank, at most 120 characters. Progress bars overwrite their line."""
        lines = re.split(r"[\r\n]+", self.tail(since, _LAST_LINE))
        return next((line.strip()[:120] for line in reversed(lines) if line.strip()), "")

    async def lines(
        self, tail: int | None = None, *, follow: bool = False, ended: Callable[[], Awaitable[bool]] = _never
    ) -> AsyncGenerator[str, None]:
        """Yield all lines, or the last ones, then with `follow` new ones. Raises `UsageError` if there is no log.

        Following ends a moment after `ended` has become true: the last lines may still be on their way then.
        """
        try:
            reader = await to_thread.run_sync(_Reader, self.path)
        except OSError as error:
            raise UsageError(f"there is no log {self.path}: {error.strerror}") from error
        rest, first, last = b"", True, not follow
        try:
            while True:
                for part in deque(await to_thread.run_sync(reader.lines), maxlen=tail if first else None):
                    rest += part
                    if rest.endswith(b"\n"):
                        yield rest.rstrip(b"\r\n").decode(errors="replace")
                        rest = b""
                if last:
                    break
                first, last = False, await ended()
                await anyio.sleep(_POLL)
            if rest:
                yield rest.decode(errors="replace")
        finally:
            reader.close()


class _Reader:
    """Reads new lines, even if the file has been truncated or replaced since the last read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO = path.open("rb")
        self._older = self._seen_older()

    def lines(self) -> list[bytes]:
        """Return the lines since the last call; the last one may be incomplete."""
        lines: list[bytes] = []
        with suppress(OSError), at_rest(self._path):  # the file may have been deleted
            lines += self._left_over()
            self._older = self._seen_older()
            lines += self._file
        return lines

    def close(self) -> None:
        self._file.close()

    def _left_over(self) -> list[bytes]:
        """Return what we had not read of a file that has been truncated (from its copy) or replaced."""
        left: list[bytes] = []
        if self._seen_older() not in {self._older, None}:
            with older(self._path, 1).open("rb") as copy:
                copy.seek(self._file.tell())
                left = [*copy]
            self._file.seek(0)
        if self._file.tell() > os.fstat(self._file.fileno()).st_size:  # truncated by another program
            self._file.seek(0)
        with suppress(OSError):
            newest = self._path.open("rb")
            if os.path.sameopenfile(self._file.fileno(), newest.fileno()):
                newest.close()
            else:
                left += self._file
                self._file.close()
                self._file = newest
        return left

    def _seen_older(self) -> tuple[int, int] | None:
        """Return what identifies the newest of the older files, or None if there is none."""
        with suppress(OSError):
            seen = older(self._path, 1).stat()
            return seen.st_ino, seen.st_mtime_ns
        return None
