"""Comma-separated values with a header row."""

from __future__ import annotations

import codecs
import csv
import io
import re
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from threading import Lock
from typing import TYPE_CHECKING, ClassVar

from orchestrator.domain.errors import UsageError
from orchestrator.domain.item import Row
from orchestrator.sources.columns import check_header, identified
from orchestrator.sources.reading import FileSource, reading, unpacked
from orchestrator.sources.signature import HEAD, foreign

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from orchestrator.domain.location import Target

CELL_LIMIT = 64 << 20  # characters; without a limit a quote left open would read the rest of the file into memory

_ESCAPED = '\\"'
_ESCAPE_IT = r'; quotes are written as \" here: give `escape="\\"`'

_NAME_IT = "name the file's encoding, as in `encoding='cp1252'`"

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_TOLD = re.compile(r"\ufeff?\"?sep=([^\r\n])\"?\r?\n")  # a first line that tells Excel the delimiter

_limits: list[int] = []
_limits_lock = Lock()


@dataclass(frozen=True, slots=True)
class CsvSource(FileSource):
    """Rows of CSV files, plain or packed (gzip, bzip2, xz, Zstandard), every value as text.

    A row with too many or too few fields, stray quotes, or bytes that do not fit the encoding is one unreadable row; a
    quote that is never closed makes the whole file unusable. A byte order mark at the beginning of a line is dropped,
    together with a repeated header after it, as in files joined by `cat`. If the mark says UTF-16, the file is read as
    UTF-16. A first line `sep=;`, as Excel understands it, names the delimiter.

    Quotes inside a field are doubled. With `escape`, they may also follow this character, which then stands for itself
    where it is doubled; as in Spark, this holds only for fields with quotes around them.
    """

    suffixes: ClassVar[Sequence[Sequence[str]]] = ((".csv", ".tsv"),)

    id: str | None = None
    delimiter: str = ","
    encoding: str = "utf-8"
    escape: str | None = None

    def __post_init__(self) -> None:
        FileSource.__post_init__(self)
        try:
            csv.reader([], delimiter=self.delimiter)
            codecs.lookup(self.encoding)
        except (TypeError, ValueError) as failure:
            raise UsageError(f"the delimiter {self.delimiter!r} cannot be used: give one character") from failure
        except LookupError as failure:
            raise UsageError(
                f"the encoding {self.encoding!r} is unknown: give one such as utf-8 or cp1252"
            ) from failure
        if self.escape is not None and (len(self.escape) != 1 or self.escape in {'"', "\r", "\n", self.delimiter}):
            raise UsageError(
                f"escape={self.escape!r} cannot be used: give one character such as '\\\\', or leave it out"
            )

    @contextmanager
    def _open(self, path: Target) -> Iterator[Iterator[Row]]:
        with _wide_cells(), unpacked(path, markup=True, wide=True) as stream:
            with reading(path):
                head = stream.peek(HEAD)
            encoding = self._encoding_of(path, head)
            # bytes that do not decode become surrogates, so that they fail only their own row
            with io.TextIOWrapper(stream, encoding, errors="surrogateescape", newline="") as text:
                told = _TOLD.match(head.decode(encoding, errors="replace"))
                lines, delimiter = (text, self.delimiter) if told is None else (chain(["\n"], text), told[1])
                if told is not None:
                    text.readline()
                joined: set[int] = set()
                unmarked = _unmarked(lines, joined)
                if self.escape is not None:
                    unmarked = _with_doubled_quotes(unmarked, self.escape, delimiter)
                yield self._rows(path, self._lines(path, unmarked, delimiter), joined)

    def _encoding_of(self, path: Target, head: bytes) -> str:
        """Return the given encoding, or UTF-16 if a byte order mark says so and UTF-8 was expected."""
        if codecs.lookup(self.encoding).name not in {"utf-8", "utf-8-sig"}:
            return self.encoding
        if head.startswith(_UTF16) and not head.startswith(codecs.BOM_UTF32_LE):
            return "utf-16"
        if found := foreign(head):
            raise UsageError(f"{path} is {found[0]}: {found[1]}")
        return self.encoding

    def _rows(
        self, path: Target, lines: Iterator[tuple[int, list[str], str | None]], joined: set[int]
    ) -> Iterator[Row]:
        _, header, fault = next(lines, (0, [], None))
        if fault is not None:
            raise UsageError(f"{path} has no header that can be read: {fault}")
        check_header(str(path), header, self.id if header else None, hint=_other_delimiter(header))
        return (
            self._row(number, header, fields, fault)
            for number, fields, fault in lines
            if number not in joined or fields != header
        )

    def _lines(self, path: Target, text: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str], str | None]]:
        """Yield the fields of each row with the line on which it begins and what is wrong with it."""
        escaped: set[int] = set()
        reader = csv.reader(_watched(text, escaped), delimiter=delimiter, strict=True)
        with reading(path):
            while True:
                escaped.clear()
                number = reader.line_num + 1
                fault = None
                try:
                    fields = next(reader)
                    "".join(fields).encode()
                except StopIteration:
                    return
                except UnicodeEncodeError:
                    fault = f"line {number} is not valid {self.encoding}: {_NAME_IT}"
                except UnicodeError as failure:
                    raise UsageError(f"{path} is not valid {self.encoding}: {_NAME_IT}") from failure
                except csv.Error as failure:
                    hint = _ESCAPE_IT if escaped and self.escape is None else ""
                    if reader.line_num > number:  # nothing tells where the next row would begin
                        raise UsageError(
                            f"{path}, line {number}: a quote is not closed ({failure}): correct the line{hint}"
                        ) from failure
                    fields, fault = [], f"line {number} is not valid CSV: {failure}{hint}"
                if fields or fault:
                    yield number, fields, fault

    def _row(self, number: int, header: list[str], fields: list[str], fault: str | None) -> Row:
        if fault is None and len(fields) != len(header):
            fault = f"line {number} has {len(fields)} fields where the header has {len(header)}"
            if self.escape is None and any(field.endswith("\\") for field in fields):
                fault += _ESCAPE_IT
        if fault is not None:
            raw = self.delimiter.join(fields)[:500].encode(errors="replace").decode()
            return Row({"line": number, "raw": raw}, unreadable=fault)
        return identified(dict(zip(header, fields, strict=True)), self.id, "line", number)


def _other_delimiter(header: list[str]) -> str:
    """Return a hint if the header is one column but another delimiter would split it into several."""
    found = next((mark for mark in ";\t|," if len(header) == 1 and mark in header[0]), None)
    return f"; or give `delimiter={found!r}`" if found else ""


def _unmarked(lines: Iterable[str], marked: set[int]) -> Iterator[str]:
    """Yield the lines without byte order marks at their beginnings; collect the numbers of those that had one."""
    for number, line in enumerate(lines, 1):
        if line.startswith("\ufeff"):
            marked.add(number)
        yield line.removeprefix("\ufeff")


def _with_doubled_quotes(lines: Iterable[str], escape: str, delimiter: str) -> Iterator[str]:
    """Yield the lines with quotes doubled where they are escaped, inside fields with quotes around them."""
    mark = re.escape(escape)
    content = re.compile(rf'(?:[^"{mark}]++|{mark}.?|"")*+', re.DOTALL)  # up to the quote that closes the field
    pair = re.compile(rf'{mark}(["{mark}])')
    inside = False
    for line in lines:
        parts, at = list[str](), 0
        while at < len(line):
            begin = at
            if not inside and line.startswith('"', at):
                inside, at = True, at + 1
            if inside and (found := content.match(line, at)):
                parts += line[begin:at], pair.sub(lambda one: '""' if one[1] == '"' else one[1], found[0])
                begin = at = found.end()
                inside = at == len(line)
            if not inside:
                at = line.find(delimiter, at) + 1 or len(line)
                parts.append(line[begin:at])
        yield "".join(parts)


def _watched(lines: Iterable[str], escaped: set[int]) -> Iterator[str]:
    """Yield the lines; collect the numbers of those in which a quote follows a backslash."""
    for number, line in enumerate(lines, 1):
        if _ESCAPED in line:
            escaped.add(number)
        yield line


@contextmanager
def _wide_cells() -> Iterator[None]:
    """Raise the csv module's process-wide limit on a cell until the last open source is closed."""
    with _limits_lock:
        _limits.append(csv.field_size_limit())
        csv.field_size_limit(max(CELL_LIMIT, _limits[-1]))
    try:
        yield
    finally:
        with _limits_lock:
            csv.field_size_limit(_limits.pop())
