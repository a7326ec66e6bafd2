"""Plain text: one item per line."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from orchestrator.domain.errors import UsageError
from orchestrator.domain.item import Row
from orchestrator.sources.reading import MOST_OF_LINE, FileSource, excerpt, filled_lines, reading, unpacked
from orchestrator.sources.signature import HEAD

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO

    from orchestrator.domain.location import Target


@dataclass(frozen=True, slots=True)
class TextSource(FileSource):
    """Lines of UTF-8 text files, plain or compressed (gzip, bzip2, xz, Zstandard), as column `text`.

    Blank lines are skipped. The line number is not a column, because inserting a line would change the identity of
    every line below it.
    """

    suffixes: ClassVar[Sequence[Sequence[str]]] = ((".txt",),)

    @contextmanager
    def _open(self, path: Target) -> Iterator[Iterator[Row]]:
        with unpacked(path) as stream:
            with reading(path):
                returns_alone = _returns_alone(stream.peek(HEAD))
            if returns_alone:
                raise UsageError(
                    f"{path} has lines that end with a carriage return alone, as on old Macs: write it again with the "
                    "output of `tr '\\r' '\\n'`"
                )
            yield self._rows(path, stream)

    def _rows(self, path: Target, stream: BinaryIO) -> Iterator[Row]:
        with reading(path):
            for number, line in filled_lines(stream):
                if len(line) > MOST_OF_LINE:
                    too_long = f"line {number} is longer than {MOST_OF_LINE:,} bytes"
                    yield Row({"line": number, "raw": excerpt(line)}, unreadable=too_long)
                    continue
                try:
                    text = line.removesuffix(b"\n").removesuffix(b"\r").decode()
                except UnicodeDecodeError as failure:
                    yield Row(
                        {"line": number, "raw": excerpt(line)},
                        unreadable=f"line {number} is not valid UTF-8: {failure.reason}",
                    )
                else:
                    yield Row({"text": text})


def _returns_alone(head: bytes) -> bool:
    return b"\n" not in head and head.count(b"\r") > 1
