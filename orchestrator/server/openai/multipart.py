"""Reading a form with one file as a stream, in constant memory and whatever the order of its parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import BadHttpMessage

from orchestrator.server.failures import Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

_READ = 1 << 16
_FIELDS = 1 << 16  # bytes of all fields together
_PARTS = 100
_PLAIN = ("", "7bit", "8bit", "binary")  # transfer encodings that leave the bytes as they are


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a form, and the name of its file."""

    fields: Mapping[str, str]
    filename: str


async def read_form(request: web.Request, file: str, write: Callable[[bytes], Awaitable[object]], *, most: int) -> Form:
    """Pass the content of the part named `file` to `write`, piece by piece, and return the rest of the form.

    Raises `Refused` if the body is not such a form, or if the file is larger than `most` bytes.
    """
    if request.content_type != "multipart/form-data":
        raise Refused(400, f"expected multipart/form-data with a part {file!r}, not {request.content_type}")
    if (request.content_length or 0) > most + 2 * _FIELDS:
        raise too_large(most)  # before anything is read
    try:
        return await _read(request, file, write, most)
    except (
        ValueError,
        AssertionError,
        LookupError,
        BadHttpMessage,
    ) as error:  # how aiohttp's reader reports what it cannot parse
        why = error.message if isinstance(error, BadHttpMessage) else str(error)
        raise Refused(400, f"the body is not valid multipart/form-data: {' '.join(why.split())}") from error


async def _read(request: web.Request, file: str, write: Callable[[bytes], Awaitable[object]], most: int) -> Form:
    fields: dict[str, str] = {}
    filename: str | None = None
    room, parts = _FIELDS, 0
    async for part in await request.multipart():
        parts += 1
        if not isinstance(part, BodyPartReader) or part.name is None or parts > _PARTS:
            raise Refused(400, f"expected a form with one file {file!r} and a few fields")
        if part.name in fields or (part.name == file and filename is not None):
            raise Refused(400, f"the form has more than one {part.name!r}", param=part.name)
        if part.headers.get("Content-Transfer-Encoding", "").lower() not in _PLAIN:
            raise Refused(400, f"{part.name!r} has a Content-Transfer-Encoding: send it as it is", param=part.name)
        if part.name == file:
            filename = _text(part.filename or file)
            await _copy(part, write, most)
        else:
            value = await _value(part, room)
            room -= len(value)
            fields[_text(part.name)] = value.decode()
    if filename is None:
        raise Refused(400, f"Missing required parameter: '{file}'.", code="missing_required_parameter", param=file)
    return Form(fields, filename)


async def _copy(part: BodyPartReader, write: Callable[[bytes], Awaitable[object]], most: int) -> None:
    """Write a part piece by piece."""
    size = 0
    while not part.at_eof():
        piece = await part.read_chunk(_READ)
        size += len(piece)
        if size > most:
            raise too_large(most)
        await write(piece)


async def _value(part: BodyPartReader, most: int) -> bytes:
    value = bytearray()
    while not part.at_eof():
        value += await part.read_chunk(_READ)
        if len(value) > most:
            raise Refused(413, f"the fields of the form are larger than {_FIELDS:,} bytes", param=part.name)
    return bytes(value)


def _text(name: str) -> str:
    """Return a name of a part's head. Bytes that are not UTF-8, which aiohttp gives as surrogates, are replaced."""
    return name.encode(errors="surrogateescape").decode(errors="replace")


def too_large(most: int) -> Refused:
    """Return the refusal of a file that is larger than this."""
    return Refused(413, f"the file is larger than {most:,} bytes, the most that this server takes", param="file")
