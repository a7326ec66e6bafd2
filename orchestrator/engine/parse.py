"""The job's own `parse`, kept from doing harm: whatever it raises is that item's failure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import orjson

from orchestrator import exact_json
from orchestrator.domain.errors import FailureKind, RequestFailed

Parse: TypeAlias = Callable[[object], object] | None


def parsed(parse: Parse, answer: object) -> str:
    """The output for an answer, as JSON. Raises `RequestFailed` with the reason where `parse` refuses it."""
    try:
        return exact_json.dumps(answer if parse is None else parse(answer), option=orjson.OPT_SERIALIZE_NUMPY).decode()
    except Exception as error:
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise RequestFailed(FailureKind.PARSE, reason) from error
