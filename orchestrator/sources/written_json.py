"""JSON as tools write it: with NaN, Infinity and halves of surrogate pairs, which the standard does not allow."""

from __future__ import annotations

import json

import orjson

from orchestrator import exact_json
from orchestrator.domain.json_values import whole


def loads(text: bytes | str) -> object:
    """Return the value of a JSON text. NaN and Infinity become None, as in Parquet; half a surrogate pair U+FFFD.

    Raises `orjson.JSONDecodeError` if the text is not JSON for any other reason.
    """
    try:
        return exact_json.loads(text)
    except orjson.JSONDecodeError as failure:
        try:
            decoded = text.decode(errors="surrogatepass") if isinstance(text, bytes) else text
            return whole(json.loads(decoded, parse_constant=_no_number, parse_float=_finite))
        except (ValueError, RecursionError):
            raise failure from None


def _no_number(_name: str) -> None:
    return None


def _finite(text: str) -> float:
    number = float(text)
    if number in {float("inf"), float("-inf")}:
        raise ValueError(f"{text} is beyond what a float holds")
    return number
