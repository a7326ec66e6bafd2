"""A handler's answers as JSON, exactly as the toolkit writes them; what the toolkit refuses is refused here."""

from __future__ import annotations

import base64
import io
from typing import Any

import orjson


class Unwritable(Exception):
    """The handler's answer has no JSON form; the message names the part and the remedy."""


_REMEDIES = {
    "Tensor": "use .tolist()",
    "ndarray": "use .tolist()",
    "set": "make it a list",
    "frozenset": "make it a list",
    "generator": "make it a list",
    "dict_keys": "make it a list",
    "dict_values": "make it a list",
    "bytes": "write it in base64, or decode it",
}


def written(answer: object) -> bytes:
    """Write arrays as numbers, images as base64 PNG, tuples as lists, NaN and infinity as null; else `Unwritable`."""
    unknown: list[str] = []

    def png(value: Any) -> str:
        if is_image(value):
            return base64.b64encode(as_image(value, "PNG")).decode()
        unknown.append(type(value).__name__)
        raise TypeError

    try:
        return orjson.dumps(answer, png, orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as error:
        remedy = _REMEDIES.get(unknown[-1]) if unknown else None
        raise Unwritable(
            f"the handler's answer cannot be written as JSON: {error}{f'; {remedy}' if remedy else ''}"
        ) from error


def is_image(value: object) -> bool:
    """Whether this is a Pillow image; checked without importing Pillow."""
    return any(kind.__module__ == "PIL.Image" for kind in type(value).__mro__)


def as_image(image: Any, kind: str) -> bytes:
    """Return the bytes of an image in one of Pillow's formats."""
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()
