"""A server that records how long its own answers took, in a process of its own: the truth for load tests.

It is an asyncio protocol of few instructions, so that thousands of requests a second leave room for the client. Each
request waits for a time drawn from a log-normal distribution. `python -m tests.load_server MEDIAN SPREAD SLOTS` prints
its port. With SLOTS above 0, so many requests are worked on at once and the others wait, as in a real model server.

GET /taken: the seconds of all answers so far, as little-endian doubles, from the request's last byte to the answer's
first; then they are forgotten. POST /stall/SECONDS/AFTER: after so many more answers, nothing is answered for so long.
"""

from __future__ import annotations

import array
import asyncio
import http.client
import random
import re
import subprocess
import sys
import time
from collections import deque
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import uvloop

if TYPE_CHECKING:
    from collections.abc import Iterator

_ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 27\r\n\r\n[{"generated_text":"fine"}]'

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class LoadServer:
    """The server as a test sees it."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/"
        self._port = port

    def taken(self) -> list[float]:
        """Return the seconds of all answers since the last call, sorted."""
        found = array.array("d")
        found.frombytes(self._call("GET", "/taken"))
        return sorted(found)

    def stall(self, seconds: float, after: int) -> None:
        """After so many more answers, answer nothing for so long."""
        self._call("POST", f"/stall/{seconds}/{after}")

    def _call(self, method: str, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request(method, path)
            return connection.getresponse().read()
        finally:
            connection.close()


@contextmanager
def load_server(median: float, spread: float = 0.5, slots: int = 0) -> Iterator[LoadServer]:
    """Start the server; it ends with the block, or with this process."""
    command = [sys.executable, "-m", "tests.load_server", f"{median}", f"{spread}", f"{slots}"]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield LoadServer(int(process.stdout.readline()))
        finally:
            process.stdin.close()
            process.wait(60)


def percentile(taken: list[float], percent: float) -> float:
    """Return the percentile of sorted durations, by the nearest rank."""
    return taken[max(0, -(-len(taken) * percent // 100).__int__() - 1)]


class _Model:
    """What all connections share."""

    def __init__(self, median: float, spread: float, slots: int) -> None:
        self.median = median
        self.spread = spread
        self.slots = slots
        self.busy = 0
        self.waiting = deque[tuple[asyncio.Transport, float]]()
        self.taken = array.array("d")
        self.stall = 0.0
        self.until_stall = -1  # answers
        self.stalled_until = 0.0
        self.random = random.Random(1)
        self.loop = asyncio.get_running_loop()

    def accept(self, transport: asyncio.Transport, arrived: float) -> None:
        if self.slots and self.busy >= self.slots:
            self.waiting.append((transport, arrived))
            return
        self.busy += 1
        seconds = self.median * 2.718281828459045 ** (self.spread * self.random.gauss(0, 1))
        self.loop.call_later(seconds, self.finish, transport, arrived)

    def finish(self, transport: asyncio.Transport, arrived: float) -> None:
        if (left := self.stalled_until - time.monotonic()) > 0:
            self.loop.call_later(left, self.finish, transport, arrived)
            return
        transport.write(_ANSWER)
        self.taken.append(time.monotonic() - arrived)
        self.busy -= 1
        self.until_stall -= 1
        if self.until_stall == 0:
            self.stalled_until = time.monotonic() + self.stall
        if self.waiting:
            self.accept(*self.waiting.popleft())

    def told(self, path: bytes) -> bytes:
        if path == b"/taken":
            found, self.taken = self.taken.tobytes(), array.array("d")
            return found
        _, _, seconds, after = path.split(b"/")
        self.stall, self.until_stall = float(seconds), int(after)
        return b""


class _Connection(asyncio.Protocol):
    def __init__(self, model: _Model) -> None:
        self._model = model
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        arrived = time.monotonic()
        self._read += data
        head, end, rest = self._read.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(found[1]) if (found := _LENGTH.search(head)) is not None else 0
        if len(rest) < length:
            return
        self._read = rest[length:]
        method, path, _ = head.split(b"\r\n", 1)[0].split(b" ")
        if method == b"POST" and path == b"/":
            self._model.accept(self._transport, arrived)
        elif path in {b"/metrics", b"/info", b"/v1/models"}:
            self._transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        else:
            content = self._model.told(path)
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content))


async def _main() -> None:
    model = _Model(float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
    server = await model.loop.create_server(lambda: _Connection(model), "127.0.0.1", 0, backlog=4096)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)  # ends when the process that started us closes it, or ends


if __name__ == "__main__":
    uvloop.run(_main())
