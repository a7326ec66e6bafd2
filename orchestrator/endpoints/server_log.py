"""The log of a server that we run: what it writes, in a file of the user's log folder, and in the two before that."""

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
    from collections.abc import AsyncGenerator
    from pathlib import Path
    from typing import BinaryIO

_TAIL = 65_536  # last bytes of one start in which the reason for its end is looked for
_LAST_LINE = 4096
_POLL = 0.25  # seconds
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")  # colours, cursor moves


@dataclass(frozen=True, slots=True)
class ServerLog:
    """One file, and the older ones beside it: NAME.log, NAME.log.1, NAME.log.2. It never gets large."""

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
            file = opened(self.path)
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
            reader = await to_thread.run_sync(_Reader, self.path)
        except OSError as error:
            raise UsageError(f"there is no log {self.path}: {error.strerror}") from error
        rest = b""
        try:
            found = deque(await to_thread.run_sync(reader.lines), maxlen=tail)
            while True:
                for line in found:
                    rest += line
                    if rest.endswith(b"\n"):
                        yield rest.rstrip(b"\r\n").decode(errors="replace")
                        rest = b""
                if not follow:
                    break
                await anyio.sleep(_POLL)
                found = deque(await to_thread.run_sync(reader.lines))
            if rest:
                yield rest.decode(errors="replace")
        finally:
            reader.close()


class _Reader:
    """Reads on where it was, also where the file has been emptied meanwhile, or is another one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO = path.open("rb")
        self._older = self._seen_older()

    def lines(self) -> list[bytes]:
        """What has come since the last time; the last line may have no end yet."""
        found: list[bytes] = []
        with suppress(OSError), at_rest(self._path):  # somebody has tidied up
            found += self._left_over()
            self._older = self._seen_older()
            found += self._file
        return found

    def close(self) -> None:
        self._file.close()

    def _left_over(self) -> list[bytes]:
        """What we had not read of a file that was emptied (its copy is as it was), or that has been taken away."""
        left: list[bytes] = []
        if self._seen_older() not in {self._older, None}:
            with older(self._path, 1).open("rb") as copy:
                copy.seek(self._file.tell())
                left = [*copy]
            self._file.seek(0)
        if self._file.tell() > os.fstat(self._file.fileno()).st_size:  # emptied by somebody else
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
        """Which file the last older one is."""
        with suppress(OSError):
            seen = older(self._path, 1).stat()
            return seen.st_ino, seen.st_mtime_ns
        return None
