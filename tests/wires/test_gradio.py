"""The wire of Gradio apps, on the answers of gradio 6.31.0 as they were recorded from a real app."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import orjson
import pytest
from yarl import URL

from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.domain.item import File
from orchestrator.wires import GradioWire
from orchestrator.wires.failures import from_answer

if TYPE_CHECKING:
    from pathlib import Path

FILE = {
    "path": "/tmp/gradio/9ad0/out.txt",  # noqa: S108 - recorded
    "url": "https://acme-app.hf.space/gradio_api/file=/tmp/gradio/9ad0/out.txt",
    "size": 3,
    "orig_name": "out.txt",
    "mime_type": None,
    "is_stream": False,
    "meta": {"_type": "gradio.FileData"},
}


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        (b'event: complete\ndata: [{"label": "cba", "scale": 2}]\n\n', {"label": "cba", "scale": 2}),
        (b'event: complete\ndata: ["ABC", 3]\n\n', ["ABC", 3]),
        (b'event: heartbeat\ndata: null\n\nevent: complete\ndata: ["ABC"]\n\n', "ABC"),
        (
            b'event: generating\ndata: ["0"]\n\nevent: generating\ndata: ["1"]\n\nevent: complete\ndata: ["2"]\n\n',
            "2",
        ),
        (b"event: complete\ndata: [" + orjson.dumps(FILE) + b"]\n\n", FILE),
    ],
)
def test_the_outputs_of_the_function_are_the_answer(content: bytes, answer: object) -> None:
    assert GradioWire("f").unpack(content, 1) == [answer]


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (b'event: error\ndata: {"error": null}\n\n', FailureKind.DUBIOUS, "launch(show_error=True)"),
        (b"event: error\ndata: null\n\n", FailureKind.DUBIOUS, "launch(show_error=True)"),
        (
            b'event: error\ndata: {"error": "secret reason abc", "visible": true}\n\n',
            FailureKind.DUBIOUS,
            "the app's function failed: secret reason abc",
        ),
        (
            b'event: error\ndata: {"error": "no such thing: abc", "duration": 10, "title": "Error"}\n\n',
            FailureKind.DUBIOUS,
            "the app's function failed: no such thing: abc",
        ),
        (b'event: error\ndata: "404: Not Found"\n\n', FailureKind.UNAVAILABLE, "no longer knows this request"),
        (b'event: generating\ndata: ["0"]\n\n', FailureKind.GARBLED, "ended before the answer"),
        (b'event: complete\ndata: ["ABC"', FailureKind.GARBLED, "ended before the answer"),
        (b"event: complete\ndata: [null]\n\n", FailureKind.GARBLED, "null"),
        (b"event: complete\ndata: []\n\n", FailureKind.GARBLED, "no outputs"),
        (b"event: error\ndata: {\n\n", FailureKind.DUBIOUS, "does not say why"),
    ],
)
def test_an_event_that_is_no_answer_fails_the_request(content: bytes, kind: FailureKind, message: str) -> None:
    with pytest.raises(RequestFailed) as failure:
        GradioWire("f").unpack(content, 1)
    assert (failure.value.kind, message in failure.value.message) == (kind, True)


def test_a_full_queue_is_asked_again_later() -> None:
    said = b'{"detail":"Queue is full. Max size is 2 and size is 2."}'
    failure = from_answer("http://h/", 503, {}, said)
    assert isinstance(failure, RequestFailed)
    assert (failure.kind, failure.message) == (
        FailureKind.RATE_LIMITED,
        "Queue is full. Max size is 2 and size is 2.",
    )


async def test_inputs_are_sent_in_their_order_and_an_image_as_gradio_takes_it(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"png")
    image, text = (
        File(str(tmp_path / "a.png"), hashlib.sha256(b"png").hexdigest(), kind).as_json()
        for kind in ("image/png", "text/plain")
    )
    wire = GradioWire("/f", [0.5, None])
    sent = {"url": "data:image/png;base64,cG5n", "meta": {"_type": "gradio.FileData"}}
    for request, data in (("a", ["a", 0.5, None]), (["a", 1], ["a", 1]), (image, [sent, 0.5, None])):
        assert orjson.loads((await wire.pack([orjson.dumps(request)])).content) == {"data": data}
    with pytest.raises(RequestFailed, match="carries images only"):
        await wire.pack([orjson.dumps(text)])


def test_the_answer_is_at_the_url_of_the_event_with_the_query_of_the_endpoint() -> None:
    assert str(GradioWire("/f", prefix="").url(URL("http://h/"))) == "http://h/call/f"  # Gradio 4
    wire = GradioWire("/f")
    url = wire.url(URL("http://h/behind?a=1%202"))
    assert str(url) == "http://h/behind/gradio_api/call/f?a=1%202"
    answer = wire.answer_url(url, b'{"event_id":"f819c5e5e12f446cb2886f4c67bd8a21"}')
    assert str(answer) == "http://h/behind/gradio_api/call/f/f819c5e5e12f446cb2886f4c67bd8a21?a=1%202"
    for odd in (b"{}", b"null", b"[]", b'{"event_id": "../../x"}', b'{"event_id": 7}', b"<html>"):
        with pytest.raises(RequestFailed):
            wire.answer_url(url, odd)


@pytest.mark.parametrize("settings", [{"function": "a b"}, {"function": "/"}, {"more": "text"}, {"prefix": "api"}])
def test_a_setting_that_cannot_work_is_refused(settings: dict[str, str]) -> None:
    with pytest.raises((ValueError, TypeError), match=r"function must be|more must be|prefix must begin"):
        GradioWire(**settings)
