"""The wire of Gradio apps: a request joins the app's queue, and a stream of events at another URL has the answer.

Source of the format: the answers of `gradio` 6.31, recorded in the tests; its versions 5 have the same routes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator import exact_json
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.wires import files
from orchestrator.wires.answers import decoded, exact, garbled, shown, whole
from orchestrator.wires.routes import joined
from orchestrator.wires.wire import Body

if TYPE_CHECKING:
    from yarl import URL

_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_FORGOTTEN = b'"404: Not Found"'  # the app has restarted since it took the request


@dataclass(frozen=True, slots=True)
class GradioWire:
    """`function`: the function that is called, as the app's page "Use via API" names it.

    A request that is a list has all inputs in their order. Any other request is the first input, and `more` are those
    after it. An image file becomes an image; for any other file, send `{"path": URL}`.
    The answer is the function's output, or the list of its outputs if there are several. An output file is an object
    with its `url`.
    `prefix`: of the app's routes; "" for Gradio 4.
    """

    function: str = "predict"
    more: Sequence[object] = ()
    prefix: str = "/gradio_api"
    takes_lists = False

    def __post_init__(self) -> None:
        name = self.function.removeprefix("/")
        if not _NAME.fullmatch(name):
            raise ValueError(f"function must be the name of one of the app's functions, not {self.function!r}")
        if isinstance(self.more, str) or not isinstance(self.more, Sequence):
            raise TypeError(f"more must be a list of inputs, not {self.more!r}")
        if self.prefix and not self.prefix.startswith("/"):
            raise ValueError(f"prefix must begin with /, not {self.prefix!r}")
        object.__setattr__(self, "function", name)

    @property
    def identity(self) -> Mapping[str, object]:
        """The function, and the inputs that are the same for all requests."""
        return {"wire": "gradio", "function": self.function, "more": list(self.more)}

    def url(self, base: URL) -> URL:
        """Return the URL at which requests join the queue."""
        return joined(base, f"{self.prefix}/call/{self.function}")

    async def pack(self, requests: Sequence[bytes]) -> Body:
        """Return the body with the inputs of this one request (JSON)."""
        (request,) = requests
        inputs: object = exact_json.loads(request)
        if files.MARK in request:
            inputs = await files.replaced(inputs, _image)
        return Body.of({"data": inputs if isinstance(inputs, list) else [inputs, *self.more]})

    def answer_url(self, url: URL, content: bytes) -> URL:
        """Return the URL of the events of a request that has joined the queue."""
        answer = decoded(content)
        event = answer.get("event_id") if isinstance(answer, Mapping) else None
        if not isinstance(event, str) or not _NAME.fullmatch(event):
            raise garbled(f"there is no event_id in the answer: {shown(answer)}")
        return url.with_path(f"{url.raw_path}/{event}", encoded=True, keep_query=True)

    def unpack(self, content: bytes, count: int) -> list[object]:
        """Return the outputs of the function. What it has yielded before the last event is left out."""
        event, data = _last_event(content)
        if event == b"error":
            raise _failure(data)
        if event != b"complete":
            raise garbled("the stream of events ended before the answer")
        outputs = whole(exact(decoded(data)))
        if not isinstance(outputs, list) or not outputs:
            raise garbled(f"there are no outputs in the answer: {shown(outputs)}")
        return [outputs[0] if len(outputs) == 1 else outputs]


def _last_event(content: bytes) -> tuple[bytes, bytes]:
    """Return the name and the data of the last complete event."""
    events = content.replace(b"\r\n", b"\n").split(b"\n\n")[:-1]
    fields = dict(line.split(b": ", 1) for line in events[-1].split(b"\n") if b": " in line) if events else {}
    return fields.get(b"event", b""), fields.get(b"data", b"")


def _failure(data: bytes) -> RequestFailed:
    """Return the failure that an event "error" stands for. Whether the input is at fault, Gradio does not say."""
    if data == _FORGOTTEN:
        return RequestFailed(FailureKind.UNAVAILABLE, "the app no longer knows this request: it may have restarted")
    said: object = None
    with suppress(ValueError):
        said = exact_json.loads(data)
    reason = said.get("error") if isinstance(said, Mapping) else said
    if not isinstance(reason, str) or not reason:
        reason = "it does not say why; launch(show_error=True) in the app makes it say"
    return RequestFailed(FailureKind.DUBIOUS, f"the app's function failed: {reason}", status=200)


def _image(file: Mapping[str, str]) -> object:
    return {"url": files.data_url(file), "meta": {"_type": "gradio.FileData"}}
