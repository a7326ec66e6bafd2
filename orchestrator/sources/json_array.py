"""A JSON array, or objects that are not one per line, read one at a time, so that they need not fit in memory."""

from __future__ import annotations

import re
from json import JSONDecoder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

_CHUNK = 1 << 20
_BOM = b"\xef\xbb\xbf"
_OPENS_LINES = re.compile(rb"""\s*\{[ \t\r]*\n\s*["}]""")
_OPENS_OBJECTS = re.compile(rb"\s*\[\s*[{\]]")
_DECODER = JSONDecoder()
# a whole string, the beginning of one that goes on, or what opens, closes and separates
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+(?P<end>"|\\?\Z)|[][{},]', re.DOTALL)


def is_array(head: bytes) -> bool:
    """Whether a file that begins with these bytes is an array of objects, or an empty array."""
    return _OPENS_OBJECTS.match(head.removeprefix(_BOM)) is not None


def elements(stream: BinaryIO, most: int) -> Iterator[bytes]:
    """Yield each element of the array as written; of an element beyond `most` bytes, the first `most` + 1.

    Raises `ValueError` if the file does not end with the array.
    """
    return _values(stream, most, depth_of_values=1)


def is_indented(head: bytes) -> bool:
    """Whether a file that begins with these bytes has objects over several lines, as `jq .` prints them."""
    return _OPENS_LINES.match(head.removeprefix(_BOM)) is not None


def is_joined(head: bytes) -> bool:
    """Whether a file that begins with these bytes has objects side by side on a line, as Amazon Data Firehose does."""
    line = head.removeprefix(_BOM).lstrip().partition(b"\n")[0].decode(errors="replace")
    try:
        _, end = _DECODER.raw_decode(line)
    except (ValueError, RecursionError):
        return False
    return line.startswith("{") and line[end:].lstrip().startswith("{")


def documents(stream: BinaryIO, most: int) -> Iterator[bytes]:
    """Yield each object of a file of consecutive objects; of an object beyond `most` bytes, the first `most` + 1.

    Raises `ValueError` if the last one does not end.
    """
    return _values(stream, most, depth_of_values=0)


def _values(stream: BinaryIO, most: int, *, depth_of_values: int) -> Iterator[bytes]:  # noqa: C901 - one loop
    """Values inside one array (at depth 1), where commas end them, or side by side (at 0), where their brackets do."""
    in_array = depth_of_values == 1
    data, long = bytearray(stream.read(_CHUNK).removeprefix(_BOM)), b""
    depth = begin = place = 0  # `begin`: where the value starts; `place`: how far it has been scanned
    while True:
        open_string = False
        for token in _TOKEN.finditer(data, place):
            if open_string := token[0][:1] == b'"' and token["end"] != b'"':
                break
            place = token.end()
            if token[0] in {b"[", b"{"}:
                depth += 1
                begin = place if in_array and depth == 1 else begin
            elif token[0] in {b"]", b"}"}:
                depth -= 1
            if depth <= 0 or (in_array and depth == 1 and token[0] == b","):
                if value := long or bytes(data[begin : token.start() if in_array else place]).strip():
                    yield value
                begin, long = place, b""
            if in_array and depth <= 0:
                _check_end(bytes(data[place:]), stream)
                return
        place = place if open_string else len(data)
        rest = b'"' + token["end"] if open_string else b""
        del data[:begin]
        place, begin = place - begin, 0
        if len(data) > most:
            long, data, place = long or bytes(data[: most + 1]), bytearray(rest), 0
        more = stream.read(max(_CHUNK, len(data)))  # twice as much each time, because a long string is scanned again
        if not more and (in_array or long or data.strip()):
            raise ValueError("it ends before its array does" if in_array else "it ends before its last object does")
        if not more:
            return
        data += more


def _check_end(rest: bytes, stream: BinaryIO) -> None:
    if rest.strip() or any(more.strip() for more in iter(lambda: stream.read(_CHUNK), b"")):
        raise ValueError("it goes on after its array")
