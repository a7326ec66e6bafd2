"""What goes back to the parent: one JSON entry per request, {"output": ...} or {"error": {"kind", "message"}}.

An output whose input did not fit the model has "input_cut" beside it, how many tokens the model was given of it; one
that was cut itself, "cut": true.
"""

from __future__ import annotations

import orjson


def completed(answer: bytes, *, input_cut: int | None = None, cut: bool = False) -> bytes:
    """The entry of an answered request; the answer is JSON already."""
    given = b"" if input_cut is None else b',"input_cut":%d' % input_cut
    return b'{"output":' + answer + given + b',"cut":true' * cut + b"}"


def failed(kind: str, message: str) -> bytes:
    """The entry of a request without an answer; `kind` is a `FailureKind`."""
    return orjson.dumps({"error": {"kind": kind, "message": message}})
