"""A web server on loopback for files: with and without ranges, entity tags, redirects, and cut connections."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import unquote

from tests.untraced import UntracedThread, untraced

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(slots=True)
class WebService:
    """`zero`: it says of every file that its length is 0. `shifts`: it answers with another range than was asked for.

    `cuts`: of so many of the next answers with a body, half is sent. `refuses`: paths by status.
    """

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    refuses: dict[str, int] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    ranges: bool = True
    tags: bool = True
    lengths: bool = True
    heads: bool = True
    zero: bool = False
    shifts: bool = False
    cuts: int = 0

    def put(self, path: str, content: bytes) -> str:
        self.files[path] = content
        return f"{self.url}{path}"


class _Server(ThreadingHTTPServer):
    service: WebService
    process_request_thread = untraced(ThreadingHTTPServer.process_request_thread)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        assert isinstance(self.server, _Server)
        service = self.server.service
        path = self.path.partition("?")[0]
        wanted = self.headers.get("Range", "")
        service.asked.append((self.command, unquote(path), wanted))
        path = unquote(path)
        if not body and not service.heads:
            self._end(405)
        elif path.startswith("/moved"):
            self._end(302, {"Location": f"{service.url}{path.removeprefix('/moved')}"})
        elif path in service.refuses:
            self._end(service.refuses[path])
        elif path not in service.files:
            self._end(404)
        else:
            self._send(service, service.files[path], wanted, body=body)

    def _send(self, service: WebService, content: bytes, wanted: str, *, body: bool) -> None:
        headers = {"ETag": f'"{sha256(content).hexdigest()}"'} if service.tags else {}
        status = 200
        if wanted and service.ranges:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            if int(first) >= len(content):
                self._end(416)
                return
            if service.shifts:
                first, last = str(int(first) + 1), str(int(last) + 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            status, content = 206, content[int(first) : int(last) + 1]
        if service.lengths or status == 206:
            headers["Content-Length"] = "0" if service.zero and not body else str(len(content))
        else:
            headers["Connection"] = "close"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if body and service.cuts:
            service.cuts -= 1
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        elif body:
            self.wfile.write(content)

    def _end(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def web_service() -> Iterator[WebService]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.service = WebService(f"http://127.0.0.1:{server.server_port}")
        thread = UntracedThread(target=server.serve_forever)
        thread.start()
        try:
            yield server.service
        finally:
            server.shutdown()
            thread.join()
