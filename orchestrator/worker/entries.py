"""What goes back to the parent: one JSON entry per request, {"output": ...} or {"error": {"kind", "message"}}.

An output whose input did not fit the model has "input_cut": true beside it; one that was cut itself, "cut": true.
"""

from __future__ import annotations

import orjson


def completed(answer: bytes, *, input_cut: bool = False, cut: bool = False) -> bytes:
    """The entry of an answered request; the answer is JSON already."""
    return b'{"output":' + answer + b',"input_cut":true' * input_cut + b',"cut":true' * cut + b"}"


def failed(kind: str, message: str) -> bytes:
    """The entry of a request without an answer; `kind` is a `FailureKind`."""
    return orjson.dumps({"error": {"kind": kind, "message": message}})
