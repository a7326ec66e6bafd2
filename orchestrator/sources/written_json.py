"""JSON as tools write it: with NaN and Infinity, and halves of surrogate pairs, which the standard does not know."""

from __future__ import annotations

import json

import orjson

from orchestrator import exact_json


def loads(text: bytes | str) -> object:
    """The value of a JSON text. What is no number there becomes None, as in Parquet; half a surrogate pair U+FFFD.

    Raises `orjson.JSONDecodeError` where it is not JSON for any other reason.
    """
    try:
        return exact_json.loads(text)
    except orjson.JSONDecodeError as failure:
        try:
            decoded = text.decode(errors="surrogatepass") if isinstance(text, bytes) else text
            return whole(json.loads(decoded, parse_constant=_no_number, parse_float=_finite))
        except (ValueError, RecursionError):
            raise failure from None


def whole(value: object) -> object:
    """The value with U+FFFD for half a surrogate pair, which no UTF-8 holds; two halves become their character."""
    if isinstance(value, str):
        return value if _encodes(value) else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {whole(key): whole(part) for key, part in value.items()}
    return list(map(whole, value)) if isinstance(value, list) else value


def _encodes(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_number(_name: str) -> None:
    return None


def _finite(text: str) -> float:
    number = float(text)
    if number in {float("inf"), float("-inf")}:
        raise ValueError(f"{text} is beyond what a float holds")
    return number
