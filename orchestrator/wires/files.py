"""Files in stored requests, here or on other machines: read when they are sent, and refused if they have changed."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeGuard

from anyio import to_thread

from orchestrator import exact_json
from orchestrator.domain.errors import FailureKind, RequestFailed, StorageSilent, UsageError
from orchestrator.domain.location import Location, is_location
from orchestrator.storage import opened
from orchestrator.wires.failures import check_room

_KEYS = {"$file", "sha256", "content_type"}  # see `domain.item.File.as_json`
MARK = b'"$file"'  # a request without it holds no file


def is_file(value: object) -> TypeGuard[Mapping[str, str]]:
    """Whether this value represents a file. Anything that only resembles one is data."""
    return isinstance(value, Mapping) and value.keys() == _KEYS and all(isinstance(v, str) for v in value.values())


async def bytes_of(file: Mapping[str, str]) -> bytes:
    """Return the file's bytes. Raises `RequestFailed` (rejected) if it cannot be read or has changed."""
    return await to_thread.run_sync(_read, file)


async def contents_in(requests: Sequence[bytes], *, elsewhere: bool) -> dict[str, str]:
    """Return the bytes of files in stored requests, in base64 by SHA-256, for a worker that cannot read them itself.

    `elsewhere`: it is on another machine. A worker on this one reads the files that are here.
    """
    named = [exact_json.loads(request) for request in requests if MARK in request]
    return await to_thread.run_sync(_contents_in, named, elsewhere) if named else {}


async def with_base64(value: object) -> object:
    """Return the value with every file replaced by its bytes in base64, as JSON bodies carry images and recordings."""
    return await replaced(value, _base64)


async def replaced(value: object, form: Callable[[Mapping[str, str]], object]) -> object:
    """Return the value with every file replaced by what `form` makes of it, in a worker thread."""
    return await to_thread.run_sync(_replaced, value, form)


async def with_data_urls(messages: object) -> object:
    """Return chat messages with every file as a `data:` URL.

    A file that is a part of a content list, or a whole content, becomes an `image_url` part; elsewhere, only the URL.
    Raises `RequestFailed` (rejected) for a file that is not an image.
    """
    return await to_thread.run_sync(_with_parts, messages)


def _contents_in(value: object, elsewhere: bool) -> dict[str, str]:  # noqa: FBT001 - `run_sync` passes no names
    if is_file(value):
        return {value["sha256"]: _base64(value)} if elsewhere or is_location(value["$file"]) else {}
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return {name: content for part in parts for name, content in _contents_in(part, elsewhere).items()}


def _with_parts(value: object) -> object:
    if is_file(value):
        return data_url(value)
    if isinstance(value, list):
        return [_part(entry) if is_file(entry) else _with_parts(entry) for entry in value]
    if isinstance(value, Mapping):
        return {
            key: [_part(entry)] if key == "content" and is_file(entry) else _with_parts(entry)
            for key, entry in value.items()
        }
    return value


def _part(file: Mapping[str, str]) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": data_url(file)}}


def data_url(file: Mapping[str, str]) -> str:
    """Return an image as a `data:` URL. Raises `RequestFailed` (rejected) for any other file."""
    if not file["content_type"].startswith("image/"):
        raise RequestFailed(
            FailureKind.REJECTED, f"{file['$file']} is {file['content_type']}; this wire carries images only"
        )
    return f"data:{file['content_type']};base64,{_base64(file)}"


def _replaced(value: object, form: Callable[[Mapping[str, str]], object]) -> object:
    if is_file(value):
        return form(value)
    if isinstance(value, list):
        return [_replaced(entry, form) for entry in value]
    if isinstance(value, Mapping):
        return {key: _replaced(entry, form) for key, entry in value.items()}
    return value


def _base64(file: Mapping[str, str]) -> str:
    return base64.b64encode(_read(file)).decode()


def _read(file: Mapping[str, str]) -> bytes:
    try:
        if is_location(file["$file"]):
            with opened(Location(file["$file"])) as stream:
                content = stream.read()
        else:
            content = Path(file["$file"]).read_bytes()
    except UsageError as error:
        raise RequestFailed(FailureKind.REJECTED, str(error)) from error
    except StorageSilent as error:
        silence = RequestFailed(FailureKind.CONNECTION, str(error))
        silence.sent = False
        raise silence from error
    except (OSError, ValueError) as error:
        check_room(error)
        why = getattr(error, "strerror", None) or error
        raise RequestFailed(FailureKind.REJECTED, f"cannot read {file['$file']}: {why}") from error
    if hashlib.sha256(content).hexdigest() != file["sha256"]:
        raise RequestFailed(FailureKind.REJECTED, f"{file['$file']} has changed since it was ingested; run again")
    return content
