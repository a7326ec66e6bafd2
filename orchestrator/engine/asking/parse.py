"""The job's own `parse`, kept from doing harm: whatever it raises is that item's failure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import orjson

from orchestrator import exact_json
from orchestrator.domain.errors import FailureKind, RequestFailed, described

Parse: TypeAlias = Callable[[object], object] | None

_ROOM = 8  # levels that a delivered record and what is shown of an item have around it; orjson writes 254 in all


def parsed(parse: Parse, answer: object) -> str:
    """The output for an answer, as JSON. Raises `RequestFailed` with the reason where `parse` refuses it."""
    if parse is None:
        return stored(answer)
    try:
        return _written(parse(answer))
    except (Exception, SystemExit) as error:
        raise RequestFailed(FailureKind.PARSE, described(error, bare=ValueError)) from error


def stored(answer: object) -> str:
    """An answer as JSON, as the ledger keeps it. Raises `RequestFailed` where JSON cannot say it."""
    try:
        return _written(answer)
    except TypeError as error:
        raise RequestFailed(FailureKind.BAD_ANSWER, f"the answer cannot be stored as JSON: {error}") from error


def _written(value: object) -> str:
    """As JSON that can be written again within something else. `TypeError` where there is no such JSON."""
    for _ in range(_ROOM):
        value = [value]
    return exact_json.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)[_ROOM:-_ROOM].decode()
