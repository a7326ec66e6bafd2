"""What is returned to the parent: one JSON entry per request, {"output": ...} or {"error": {"kind", "message"}}.

If the input did not fit the model, "input_cut" says how many of its tokens the model received. If the output itself was
cut, the entry has "cut": true.
"""

from __future__ import annotations

import orjson


def completed(answer: bytes, *, input_cut: int | None = None, cut: bool = False) -> bytes:
    """Return the entry of an answered request; the answer is already JSON."""
    given = b"" if input_cut is None else b',"input_cut":%d' % input_cut
    return b'{"output":' + answer + given + b',"cut":true' * cut + b"}"


def failed(kind: str, message: str) -> bytes:
    """Return the entry of a request without an answer; `kind` is a `FailureKind`."""
    return orjson.dumps({"error": {"kind": kind, "message": message}})
