"""Standard output and error as commands write to them: if their reader goes away, the command continues."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from typing_extensions import Buffer

_NO_READER = frozenset({errno.EPIPE, errno.ECONNRESET})  # for a pipe and a socket


class _Output(io.FileIO):
    """A descriptor that discards its output once its reader is gone (`| head -1`, a terminal that was closed).

    `optional`: no write error is raised at all, for output such as progress in a log file on a full disk.
    """

    def __init__(self, descriptor: int, *, optional: bool) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self.is_read = True
        self._optional = optional
        self._no_reader = _NO_READER | ({errno.EIO} if self.isatty() else set())  # EIO on a file means lost data

    def write(self, data: Buffer, /) -> int:
        """Write the data. If the reader is gone, all of it counts as written."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno in self._no_reader:
                self.is_read = False
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.fileno())
                os.close(nowhere)
            elif not self._optional:
                raise
            return memoryview(data).nbytes


def outlive_readers() -> None:
    """Keep commands from failing because the reader of their output has gone away."""
    sys.stdout = _enduring(sys.stdout, optional=False)
    sys.stderr = _enduring(sys.stderr, optional=True)


def is_read() -> bool:
    """Whether standard output may still have a reader, as far as is known."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.is_read if isinstance(raw, _Output) else True


def _enduring(stream: TextIO | None, *, optional: bool) -> TextIO:
    if not isinstance(stream, io.TextIOWrapper):  # closed by the parent process (None), or replaced by a test
        return stream  # type: ignore[return-value]  # None is what Python itself puts there
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Output(stream.fileno(), optional=optional)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
    )
