"""Run the job's own `parse` safely: whatever it raises is a failure of that item only."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import orjson

from orchestrator import exact_json
from orchestrator.domain.errors import FailureKind, RequestFailed, described

Parse: TypeAlias = Callable[[object], object] | None

_ROOM = 8  # levels of nesting that delivered records and displays add around an item; orjson writes 254 in all


def parsed(parse: Parse, answer: object) -> str:
    """Return the output for an answer, as JSON. Raises `RequestFailed` with the reason if `parse` refuses it."""
    if parse is None:
        return stored(answer)
    try:
        return written(parse(answer))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also exit(), and the cancellation of something of its own: ours cannot occur here
        raise RequestFailed(FailureKind.PARSE, described(error, bare=ValueError)) from error


def stored(answer: object, text: str | None = None) -> str:
    """Return an answer as JSON, as the ledger keeps it. Raises `RequestFailed` if JSON cannot represent it.

    `text`: its JSON as the server wrote it, which is kept unchanged.
    """
    try:
        made = written(answer)
    except TypeError as error:
        raise RequestFailed(FailureKind.BAD_ANSWER, f"the answer cannot be stored as JSON: {error}") from error
    return made if text is None else text


def written(value: object) -> str:
    """Return JSON that still fits inside the records around it. Raises `TypeError` if there is no such JSON."""
    if isinstance(value, str):
        return exact_json.dumps(value).decode()
    for _ in range(_ROOM):
        value = [value]
    return exact_json.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)[_ROOM:-_ROOM].decode()
