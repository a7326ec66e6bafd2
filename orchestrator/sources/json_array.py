"""A JSON array, or objects over several lines, as a stream: one by one, so that all of them need not fit in memory."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

_CHUNK = 1 << 20
_BOM = b"\xef\xbb\xbf"
_OPENS_LINES = re.compile(rb"""\s*\{[ \t\r]*\n\s*["}]""")
_OPENS_OBJECTS = re.compile(rb"\s*\[\s*[{\]]")
# a whole string, the beginning of one that goes on, or what opens, closes and separates
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+(?P<end>"|\\?\Z)|[][{},]', re.DOTALL)


def is_array(head: bytes) -> bool:
    """Whether a file that begins like this is an array of objects, or an empty one."""
    return _OPENS_OBJECTS.match(head.removeprefix(_BOM)) is not None


def elements(stream: BinaryIO, most: int) -> Iterator[bytes]:  # noqa: C901 - one loop over what there is
    """Give each element of the array as it stands there; of one beyond `most` bytes the first `most` + 1.

    `ValueError` where the file does not end with the array.
    """
    data, long = bytearray(stream.read(_CHUNK).removeprefix(_BOM)), b""
    depth = begin = place = 0  # `begin`: of the element; `place`: up to which it has been looked at
    while True:
        open_string = False
        for token in _TOKEN.finditer(data, place):
            if open_string := token[0][:1] == b'"' and token["end"] != b'"':
                break
            place = token.end()
            if token[0] in {b"[", b"{"}:
                depth += 1
                begin = place if depth == 1 else begin
            elif token[0] in {b"]", b"}"}:
                depth -= 1
            if (token[0] == b"," and depth == 1) or depth == 0:
                if element := long or bytes(data[begin : token.start()]).strip():
                    yield element
                begin, long = place, b""
            if depth <= 0:
                _check_end(bytes(data[place:]), stream)
                return
        place = place if open_string else len(data)
        rest = b'"' + token["end"] if open_string else b""
        del data[:begin]
        place, begin = place - begin, 0
        if len(data) > most:
            long, data, place = long or bytes(data[: most + 1]), bytearray(rest), 0
        more = stream.read(max(_CHUNK, len(data)))  # twice as much each time: a long string is looked through anew
        if not more:
            raise ValueError("it ends before its array does")
        data += more


def is_indented(head: bytes) -> bool:
    """Whether a file that begins like this has objects over several lines, as `jq .` prints them."""
    return _OPENS_LINES.match(head.removeprefix(_BOM)) is not None


def documents(stream: BinaryIO, most: int) -> Iterator[bytes]:
    """Give each object of a file of objects that follow each other; of one beyond `most` bytes the first `most` + 1.

    `ValueError` where the last one does not end.
    """
    data, long = bytearray(stream.read(_CHUNK).removeprefix(_BOM)), b""
    depth = begin = place = 0
    while True:
        open_string = False
        for token in _TOKEN.finditer(data, place):
            if open_string := token[0][:1] == b'"' and token["end"] != b'"':
                break
            place = token.end()
            depth += (token[0] in {b"[", b"{"}) - (token[0] in {b"]", b"}"})
            if depth <= 0:
                yield long or bytes(data[begin:place]).strip()
                begin, long = place, b""
        place = place if open_string else len(data)
        rest = b'"' + token["end"] if open_string else b""
        del data[:begin]
        place, begin = place - begin, 0
        if len(data) > most:
            long, data, place = long or bytes(data[: most + 1]), bytearray(rest), 0
        more = stream.read(max(_CHUNK, len(data)))
        if not more:
            if long or data.strip():
                raise ValueError("it ends before its last object does")
            return
        data += more


def _check_end(rest: bytes, stream: BinaryIO) -> None:
    if rest.strip() or any(more.strip() for more in iter(lambda: stream.read(_CHUNK), b"")):
        raise ValueError("it goes on after its array")
