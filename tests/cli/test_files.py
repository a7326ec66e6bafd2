"""Jobs over files: the server receives the contents of the files."""

from __future__ import annotations

import base64
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import orjson
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.commands import Workplace

PRELUDE = """
from orchestrator.sources import FilesSource
from orchestrator.wires import HuggingFaceWire, OpenAIChatWire, RawJsonWire
"""
CAT, DOG = b"\x89PNG of a cat", b"\x89PNG of a dog"
CHAT = {"choices": [{"message": {"role": "assistant", "content": "seen"}, "finish_reason": "stop"}]}


@dataclass
class Taker:
    """A server that accepts everything. `took` holds the content type and the body of each request."""

    url: str = ""
    took: list[tuple[str, bytes]] = field(default_factory=list)


@pytest.fixture
def taker() -> Iterator[Taker]:
    it = Taker()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            it.took.append((self.headers["Content-Type"], self.rfile.read(int(self.headers["Content-Length"]))))
            answer = orjson.dumps(CHAT if self.path.endswith("/chat/completions") else {"label": "seen"})
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        it.url = f"http://127.0.0.1:{port}/"
        yield it


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def over_files(
    workplace: Workplace, taker: Taker, *, request: object = "{file}", wire: str = "HuggingFaceWire()"
) -> Path:
    return workplace.job(
        prelude=PRELUDE,
        source="FilesSource('in/*', id='name')",
        request=repr(request),
        endpoint=f"HttpEndpoint({taker.url!r}, wire={wire})",
        sink="JsonlSink('out.jsonl', keep=['name', 'file'])",
    )


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


SAID: list[tuple[str, object, Callable[[bytes], object]]] = [
    ("HuggingFaceWire({'top_k': 1})", "{file}", lambda file: {"inputs": b64(file), "parameters": {"top_k": 1}}),
    (
        "HuggingFaceWire()",
        {"image": "{file}", "question": "what is in {name}?"},
        lambda file: {"inputs": {"image": b64(file), "question": f"what is in {'cat' if file == CAT else 'dog'}.png?"}},
    ),
    ("RawJsonWire(path='/look', body={'picture': '{request}'})", "{file}", lambda file: {"picture": b64(file)}),
    (
        "OpenAIChatWire('m')",
        [{"role": "user", "content": [{"type": "text", "text": "Look."}, "{file}"]}],
        lambda file: {
            "model": "m",
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "Look."},
                        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{b64(file)}"}},
                    ],
                }
            ],
        },
    ),
]


@pytest.fixture
def animals(workplace: Workplace) -> None:
    folder = workplace.folder / "in"
    folder.mkdir()
    (folder / "cat.png").write_bytes(CAT)
    (folder / "dog.png").write_bytes(DOG)


@pytest.mark.usefixtures("animals")
@pytest.mark.parametrize(
    ("wire", "request_", "body"), SAID, ids=[wire.partition("(")[0] + str(n) for n, (wire, *_) in enumerate(SAID)]
)
def test_a_file_is_encoded_in_the_json_as_the_wire_requires(
    workplace: Workplace, taker: Taker, wire: str, request_: object, body: Callable[[bytes], object]
) -> None:
    ended = workplace.run("run", "--quiet", over_files(workplace, taker, request=request_, wire=wire))
    assert (ended.code, ended.err) == (0, "")
    said = [orjson.loads(content) for _, content in taker.took]
    assert sorted(said, key=str) == sorted(map(body, (CAT, DOG)), key=str)


@pytest.mark.usefixtures("animals")
def test_a_single_file_becomes_the_body_and_the_same_content_is_asked_once(workplace: Workplace, taker: Taker) -> None:
    folder = workplace.folder / "in"
    (folder / "talk.m4a").write_bytes(b"a talk")
    (folder / "same.png").write_bytes(DOG)
    job = over_files(workplace, taker)
    assert workplace.run("run", "--quiet", job).code == 0
    assert sorted(taker.took) == [("audio/m4a", b"a talk"), ("image/png", CAT), ("image/png", DOG)]
    assert [(row["name"], row["file"]) for row in workplace.outputs()] == [
        (name, str(folder / name)) for name in ("cat.png", "dog.png", "same.png", "talk.m4a")
    ]
    (folder / "cat.png").write_bytes(CAT + b", asleep")
    assert workplace.run("run", "--quiet", job).code == 0
    assert taker.took[3:] == [("image/png", CAT + b", asleep")]
