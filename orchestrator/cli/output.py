"""Standard output and error as commands write to them: whoever read them may go away, and the command goes on."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from typing_extensions import Buffer

_NOBODY_READS = frozenset({errno.EPIPE, errno.ECONNRESET})  # of a pipe and a socket


class _Output(io.FileIO):
    """A descriptor that leads nowhere once nobody reads it any more (`| head -1`, a terminal that was closed).

    `optional`: what is written is worth no failure, whatever goes wrong: progress in a log file on a full disk.
    """

    def __init__(self, descriptor: int, *, optional: bool) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self.is_read = True
        self._optional = optional
        self._nobody_reads = _NOBODY_READS | ({errno.EIO} if self.isatty() else set())  # of a file, EIO is a loss

    def write(self, data: Buffer, /) -> int:
        """All of it counts as written where nobody reads it."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno in self._nobody_reads:
                self.is_read = False
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.fileno())
                os.close(nowhere)
            elif not self._optional:
                raise
            return memoryview(data).nbytes


def outlive_readers() -> None:
    """From here on, no command fails because what it prints is read no further."""
    sys.stdout = _enduring(sys.stdout, optional=False)
    sys.stderr = _enduring(sys.stderr, optional=True)


def is_read() -> bool:
    """Whether somebody may still read standard output, as far as is known."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.is_read if isinstance(raw, _Output) else True


def _enduring(stream: TextIO | None, *, optional: bool) -> TextIO:
    if not isinstance(stream, io.TextIOWrapper):  # closed by whoever started us (None), or not ours
        return stream  # type: ignore[return-value]  # None is what Python itself puts there
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Output(stream.fileno(), optional=optional)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
    )
