"""The Hugging Face wire: `{"inputs": ..., "parameters": {...}}`, with a list of inputs if the server takes lists.

A stored request is the bare input (for zero-shot and question answering, an object), or an object with `inputs` and any
other keys for the server, or a file, whose bytes are the body. The shapes are those of the inference toolkit's sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from orchestrator import exact_json
from orchestrator.domain.answer import Answer, Note
from orchestrator.domain.errors import FailureKind, RequestFailed, UsageError
from orchestrator.wires import files
from orchestrator.wires.answers import decoded, in_order, whole
from orchestrator.wires.batches import one_answer
from orchestrator.wires.endings import text_of
from orchestrator.wires.wire import Body

if TYPE_CHECKING:
    from yarl import URL

    from orchestrator.wires.wire import Wire

# the toolkit's names for them; it compares literally and answers 400 to any other name
_EXACT = {"audio/mp4": "audio/m4a", "audio/mp3": "audio/mpeg"}


@dataclass(frozen=True, slots=True)
class HuggingFaceWire:
    """`lists`: inputs are always sent as a list, even a single one, and the answer is a list with one entry per input.

    A file is sent as its bytes; with parameters, or within other inputs, as base64 (as `huggingface_hub` does).
    """

    parameters: Mapping[str, object] = field(default_factory=dict)
    lists: bool = False
    takes_lists = True

    @property
    def identity(self) -> Mapping[str, object]:
        """Parameters, and whether inputs are sent as lists: pipelines answer one and many in different shapes."""
        return {"wire": "huggingface", "parameters": dict(self.parameters), "lists": self.lists}

    def url(self, base: URL) -> URL:
        """Return the URL unchanged: a server of this kind answers at any path."""
        return base

    async def pack(self, requests: Sequence[bytes]) -> Body:
        """Return the body for these requests (JSON each)."""
        if self.lists:
            return Body(self._pack_list(requests))
        (request,) = requests
        if not request.startswith(b"{") and files.MARK not in request:
            return Body(self._json(b'{"inputs":' + request, self.parameters))
        said = exact_json.loads(request)
        fields = self._fields(said if isinstance(said, dict) else {"inputs": said})
        if files.MARK in request:
            return await _with_files(fields)
        return Body.of(fields)

    def unpack(self, content: bytes, count: int) -> list[object]:
        """Return the answers, one per request. Raises `RequestFailed` for anything else."""
        answer = decoded(content)
        return in_order(answer, count, _told) if self.lists else [_told(answer)]

    def _pack_list(self, requests: Sequence[bytes]) -> bytes:
        inputs, parameters = [], self.parameters
        for request in requests:
            if files.MARK in request:
                raise RequestFailed(FailureKind.REJECTED, "a file cannot be in a list of inputs; use batch_size=1")
            fields = exact_json.loads(request) if request.startswith(b"{") else {}
            if "inputs" not in fields:
                inputs.append(request)
                continue
            inputs.append(exact_json.dumps(fields["inputs"]))
            own = fields.get("parameters")
            merged = {**self.parameters, **(own if isinstance(own, Mapping) else {})}
            if len(inputs) > 1 and merged != parameters:
                raise RequestFailed(FailureKind.REJECTED, "inputs with different parameters cannot share a request")
            parameters = merged
        return self._json(b'{"inputs":[' + b",".join(inputs) + b"]", parameters)

    def _fields(self, said: dict[str, object]) -> dict[str, object]:
        fields: dict[str, object] = one_answer(said) if "inputs" in said else {"inputs": said}
        own = fields.get("parameters")
        if self.parameters:
            fields["parameters"] = {**self.parameters, **(own if isinstance(own, Mapping) else {})}
        return fields

    def _json(self, head: bytes, parameters: Mapping[str, object]) -> bytes:
        return head + (b',"parameters":' + exact_json.dumps(parameters) if parameters else b"") + b"}"


def for_batches(wire: Wire, batch_size: int | Literal["auto"] | None) -> Wire:
    """The wire that carries so many items in one request. `UsageError` where it cannot; "auto" is then one."""
    if batch_size in {None, 1} or (batch_size == "auto" and not wire.takes_lists):
        return wire
    if not wire.takes_lists:
        raise UsageError(
            f"a request of the wire {wire.identity['wire']} holds one item, so policy.batch_size cannot be {batch_size}"
        )
    return replace(wire, lists=True) if isinstance(wire, HuggingFaceWire) else wire


def _told(value: object) -> object:
    """Return the answer unchanged. A text that says how it ended (TGI's `details`) has to have ended."""
    match whole(value):
        case [{"generated_text": str(text), "details": {"finish_reason": how}} as of] | (
            {"generated_text": str(text), "details": {"finish_reason": how}} as of
        ) if isinstance(text_of(text, how, of=of, limit="max_new_tokens"), Answer):
            return Answer(value, notes=frozenset({Note.CUT}))
    return value


async def _with_files(fields: dict[str, object]) -> Body:
    """Return the body: a file alone is sent as its bytes, a file among other values as base64."""
    file = fields["inputs"]
    if files.is_file(file) and len(fields) == 1:
        kind = file["content_type"]
        return Body(await files.bytes_of(file), _EXACT.get(kind, kind))
    return Body.of(await files.with_base64(fields))
