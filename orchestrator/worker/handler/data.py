"""A handler's `data`: made from a stored request or the body of an HTTP request, as the toolkit does it."""

from __future__ import annotations

import base64
import binascii
import gzip
import zlib
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from orchestrator import exact_json
from orchestrator.wires.files import is_file
from orchestrator.worker.model import Parameters, Rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Data: TypeAlias = dict[str, Any]

IMAGES = frozenset(f"image/{kind}" for kind in ("png", "jpeg", "jpg", "tiff", "bmp", "gif", "webp", "x-image"))
_AUDIO = frozenset({"audio-classification", "automatic-speech-recognition"})  # tasks whose text is base64
_FORMS = frozenset({"application/x-www-form-urlencoded", "multipart/form-data"})
_DOMAINS = ("inputs", "instances")
_PACKED: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "x-gzip": gzip.decompress,
    "deflate": zlib.decompress,
}


def from_request(request: object, shared: Parameters, task: str | None) -> Data:
    """Return the data of a stored request: an object with `inputs` unchanged; anything else becomes `inputs`.

    A file is passed as `HuggingFaceEndpoint` sends it: alone by its content type, beside other values as base64.
    Raises `Rejected` if a file cannot be read, or is not of the type it claims.
    """
    data = {**request} if isinstance(request, dict) and "inputs" in request else {"inputs": request}
    own = data.get("parameters")
    if shared:
        data["parameters"] = {**shared, **(own if isinstance(own, dict) else {})}
    if len(data) == 1 and is_file(data["inputs"]):
        file = data["inputs"]
        data = from_body(_bytes_of(file), file["content_type"], file["$file"].rpartition("/")[2])
    return _for_task({key: _with_base64(part) for key, part in data.items()}, task)


def from_http(body: bytes, content_type: str, query: Mapping[str, str], task: str | None) -> Data:
    """Return the data of an HTTP request. The query string becomes `parameters` if the body has none."""
    data = from_body(body, content_type)
    if query and "parameters" not in data:
        data["parameters"] = {name: _converted(text) for name, text in query.items()}
    return _for_task(data, task)


def unpacked(body: bytes, encoding: str) -> bytes:
    """Return the body without its `Content-Encoding`. Raises `Rejected` if it does not match or is unknown."""
    kind = encoding.strip().lower()
    if kind in {"", "identity"}:
        return body
    if kind not in _PACKED:
        raise Rejected(f"Content-Encoding: {encoding} is not taken; there is gzip and deflate")
    try:
        return _PACKED[kind](body)
    except (OSError, EOFError, zlib.error) as error:
        raise Rejected(f"the body is not {kind}, or damaged: {error}") from error


def from_body(body: bytes, content_type: str, name: str = "the body") -> Data:
    """Decode JSON with `inputs`, or an image in RGB; recordings and all other types are passed as bytes."""
    kind = content_type.partition(";")[0].strip().lower()
    if not kind:
        raise Rejected(f"{name} has no content type: JSON is application/json")
    if kind == "application/json":
        return _object(body, name)
    if kind.startswith("image/"):
        return {"inputs": _image(body, name)}
    if kind in _FORMS or kind.startswith("text/"):
        raise Rejected(f"{name} is {kind}, which is not taken: JSON is application/json")
    return {"inputs": body}


def _object(body: bytes, name: str) -> Data:
    try:
        said = exact_json.loads(body)
    except orjson.JSONDecodeError as error:
        raise Rejected(f"{name} is not JSON: {error}") from error
    if not isinstance(said, dict) or not any(name in said for name in _DOMAINS):
        raise Rejected(f'{name} needs an inputs key: {{"inputs": ...}}')
    return said


def _image(body: bytes, name: str) -> object:
    from orchestrator.worker.files import read_image

    return read_image(body, name)


def _for_task(data: Data, task: str | None) -> Data:
    """Decode a recording that is sent beside parameters: then it has to be base64."""
    if task in _AUDIO and "parameters" in data and isinstance(data.get("inputs"), str):
        try:
            data["inputs"] = base64.b64decode(data["inputs"], validate=True)
        except binascii.Error as error:
            raise Rejected(f"inputs of {task} beside parameters must be base64: {error}") from error
    return data


def _with_base64(value: object) -> object:
    if is_file(value):
        return base64.b64encode(_bytes_of(value)).decode()
    if isinstance(value, list):
        return [_with_base64(entry) for entry in value]
    if isinstance(value, dict):
        return {key: _with_base64(entry) for key, entry in value.items()}
    return value


def _bytes_of(file: Mapping[str, str]) -> bytes:
    from orchestrator.worker.files import read_file

    return read_file(file)


def _converted(text: str) -> object:
    """Convert integers and booleans; anything else stays text."""
    if text.lower() in {"true", "false"}:
        return text.lower() == "true"
    return int(text) if text.removeprefix("-").isdecimal() else text
