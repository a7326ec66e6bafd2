"""The Hugging Face wire: `{"inputs": ..., "parameters": {...}}`, a list of inputs where the server takes lists.

A stored request is the bare input, or an object with `inputs` (and whatever else the server shall see), or a file,
whose bytes are the body. See the inference toolkit's sources for the shapes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from anyio import to_thread

from orchestrator.domain.errors import FailureKind, RequestFailed

JSON_TYPE = "application/json"  # exactly: the toolkit compares it literally


@dataclass(frozen=True, slots=True)
class Body:
    """One HTTP request body."""

    content: bytes
    content_type: str = JSON_TYPE

    @property
    def headers(self) -> dict[str, str] | None:
        """What differs from the session's headers, which say JSON."""
        return None if self.content_type == JSON_TYPE else {"Content-Type": self.content_type}


@dataclass(frozen=True, slots=True)
class HuggingFaceWire:
    """`lists`: inputs always travel as a list, even one, and the answer is a list with one entry per input."""

    parameters: Mapping[str, object] = field(default_factory=dict)
    lists: bool = False

    async def pack(self, requests: Sequence[bytes]) -> Body:
        """The body that asks for these requests (canonical JSON each) at once."""
        if self.lists:
            return Body(self._pack_list(requests))
        (request,) = requests
        if not request.startswith(b"{"):
            return Body(self._json(b'{"inputs":' + request, self.parameters))
        fields = orjson.loads(request)
        if "$file" in fields:
            return await to_thread.run_sync(_read, fields)
        return Body(self._pack_fields(fields))

    def unpack(self, content: bytes, count: int) -> list[object]:
        """The answers, one per request. Raises `RequestFailed` for anything that is not that."""
        try:
            answer = orjson.loads(content)
        except ValueError as error:
            raise RequestFailed(
                FailureKind.BAD_ANSWER, f"the answer is not JSON: {_head(content)}", status=200
            ) from error
        if isinstance(answer, dict) and answer.get("error"):
            raise RequestFailed(FailureKind.BAD_ANSWER, f"an error inside a 200: {_head(content)}", status=200)
        if not self.lists:
            return [answer]
        if not isinstance(answer, list) or len(answer) != count:
            found = f"a list of {len(answer)}" if isinstance(answer, list) else f"a {type(answer).__name__}"
            raise RequestFailed(FailureKind.BAD_ANSWER, f"asked {count} inputs, got {found}", status=200)
        return answer

    def _pack_list(self, requests: Sequence[bytes]) -> bytes:
        inputs, parameters = [], self.parameters
        for request in requests:
            fields = orjson.loads(request) if request.startswith(b"{") else {}
            if "$file" in fields:
                raise RequestFailed(FailureKind.REJECTED, "a file cannot stand in a list of inputs; use batch_size=1")
            if "inputs" not in fields:
                inputs.append(request)
                continue
            inputs.append(orjson.dumps(fields["inputs"]))
            merged = {**self.parameters, **fields.get("parameters", {})}
            if len(inputs) > 1 and merged != parameters:
                raise RequestFailed(FailureKind.REJECTED, "inputs with different parameters cannot share a request")
            parameters = merged
        return self._json(b'{"inputs":[' + b",".join(inputs) + b"]", parameters)

    def _pack_fields(self, fields: dict[str, object]) -> bytes:
        if "inputs" not in fields:
            return self._json(b'{"inputs":' + orjson.dumps(fields), self.parameters)
        own = fields.get("parameters")
        if self.parameters:
            fields["parameters"] = {**self.parameters, **(own if isinstance(own, Mapping) else {})}
        return orjson.dumps(fields)

    def _json(self, head: bytes, parameters: Mapping[str, object]) -> bytes:
        return head + (b',"parameters":' + orjson.dumps(parameters) if parameters else b"") + b"}"


def _read(file: Mapping[str, str]) -> Body:
    """The file's bytes, which must still be those that were ingested."""
    try:
        content = Path(file["$file"]).read_bytes()
    except OSError as error:
        raise RequestFailed(FailureKind.REJECTED, f"cannot read {file['$file']}: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != file["sha256"]:
        raise RequestFailed(FailureKind.REJECTED, f"{file['$file']} has changed since it was ingested; run again")
    return Body(content, file["content_type"])


def _head(content: bytes) -> str:
    return content[:200].decode(errors="replace")
