"""What a real server answered, as it is kept in `recorded/*.json`, and what we make of such an answer."""

from __future__ import annotations

import hashlib
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import orjson
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream
from yarl import URL

from orchestrator import Policy
from orchestrator.domain.answer import Answer
from orchestrator.domain.batching import Limits
from orchestrator.domain.engine_metrics import engine_sample
from orchestrator.domain.errors import EndpointLost, EndpointRefused, OutOfCredit, RequestFailed
from orchestrator.domain.item import File
from orchestrator.endpoints import HttpEndpoint
from orchestrator.endpoints.reach import served_models, why_silent
from orchestrator.kinds import WIRES
from orchestrator.wires.files import is_file
from orchestrator.wires.info import limits_from

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from orchestrator.wires import Wire

FOLDER = Path(__file__).with_name("recorded")
_SILENCE = 0.2  # seconds after which a server is given up that never answers
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_MANY = Limits(1_000_000, 1_000_000)


@dataclass(frozen=True)
class Reply:
    """An answer of a server. Without a status there was none: `body` says how the connection ended."""

    status: int | None
    headers: Mapping[str, str]
    body: str


@dataclass(frozen=True)
class Record:
    """What came back in one case, and what we are to make of it.

    `wire` and `requests`: what was asked, as in a job; or `route`: what was looked at with GET.
    `reaction`: see `reaction_to`. A person writes it; while it is empty, the tests fail.
    """

    case: str
    reply: Reply
    wire: Mapping[str, Any] = field(default_factory=dict)
    requests: Sequence[object] = ()
    route: str = ""
    reaction: str = ""

    @property
    def key(self) -> tuple[str, str, str, int | str]:
        """What distinguishes it from the other records of its server."""
        reply = self.reply
        return self.case, self.route, str(self.wire.get("kind", "")), reply.status or reply.body


@dataclass(frozen=True)
class Recording:
    """The records of one server. `made_of`: packages and versions. `started`: its command. `about`: what to know."""

    server: str
    made_of: Mapping[str, str]
    started: str
    date: str
    about: str
    records: Sequence[Record]

    @classmethod
    def read(cls, path: Path) -> Recording:
        """Read a file of recordings."""
        fields = orjson.loads(path.read_bytes())
        records = [Record(**{**record, "reply": Reply(**record["reply"])}) for record in fields.pop("records")]
        return cls(**fields, records=records)

    def write(self, path: Path) -> None:
        """Write the file."""
        path.write_bytes(orjson.dumps(self, option=orjson.OPT_INDENT_2) + b"\n")


def recordings() -> dict[str, Path]:
    """Return the files by their names."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.json"))}


def wire_of(record: Record) -> Wire | None:
    """Return the wire with which a record was asked, or None if a route was looked at."""
    wire: Wire | None = WIRES.read(record.wire, "wire") if record.wire else None
    return wire


# -- what we make of an answer -----------------------------------------------------------------------------------------


async def reaction_to(record: Record, wire: Wire | None) -> str:
    """Ask a server that gives the recorded answer, through the whole data plane, and name what we make of it."""
    async with replaying(record.reply) as url:
        if wire is None:
            return await _seen(url, record)
        endpoint = HttpEndpoint(url, wire=wire)
        timeout = _SILENCE if record.reply.body == "silent" else Policy().timeout
        policy = Policy(batch_size=len(record.requests) if wire.takes_lists else None, timeout=timeout)
        try:
            async with endpoint.control() as control, control.connect(policy) as data:
                entries = await data.ask([orjson.dumps(_with_a_file(request)) for request in record.requests])
        except (RequestFailed, EndpointLost, EndpointRefused, OutOfCredit) as failure:
            return _failed(failure)
        return "; ".join(dict.fromkeys(map(_entry, entries)))


def _with_a_file(request: object) -> object:
    """Return the request with this file in place of the recording that it was asked with, which is not kept."""
    if is_file(request):
        content = Path(__file__).read_bytes()
        return File(__file__, hashlib.sha256(content).hexdigest(), request["content_type"]).as_json()
    return {name: _with_a_file(one) for name, one in request.items()} if isinstance(request, dict) else request


def _failed(failure: Exception) -> str:
    match failure:
        case EndpointLost(starting=True, retry_after=seconds):
            return "starting" if seconds is None else f"starting, asked again after {seconds:g} s"
        case EndpointLost():
            return "lost"
        case EndpointRefused():
            return "refused"
        case OutOfCredit():
            return "out of credit"
        case RequestFailed(kind=kind, retry_after=seconds, most=most):
            after = "" if seconds is None else f", after {seconds:g} s"
            return f"{kind}{after}" if most is None else f"{kind}, at most {most} at once"
    raise failure


def _entry(entry: object) -> str:
    if isinstance(entry, RequestFailed):
        return _failed(entry)
    notes = sorted(entry.notes) if isinstance(entry, Answer) else []
    return ", ".join(["an answer", *notes])


async def _seen(url: str, record: Record) -> str:
    match record.route:
        case "/metrics":
            if record.reply.status != 200 or (sample := engine_sample(record.reply.body)) is None:
                return "not read"
            numbers = {"kv_use": sample.kv_use, "waiting": sample.waiting, "running": sample.running}
            return ", ".join(f"{name} {number:g}" for name, number in numbers.items() if number is not None)
        case "/v1/models":
            return ", ".join(await served_models(URL(url), {})) or "no models"
        case "/info":
            limits = limits_from(record.reply.body.encode(), _MANY)
            return "not read" if limits == _MANY else f"at most {limits.items} items, {limits.tokens} tokens"
        case "/props" | "/slots":
            return "not asked for"
    return "ready" if await why_silent(URL(url), record.route, {}) is None else "not ready"


@asynccontextmanager
async def replaying(reply: Reply) -> AsyncIterator[str]:
    """Run a server that gives this one answer to every request, and yield its URL."""

    async def answer(stream: SocketStream) -> None:
        async with stream:
            buffered = BufferedByteReceiveStream(stream)
            head = await buffered.receive_until(b"\r\n\r\n", 100_000)
            length = _LENGTH.search(head)
            await buffered.receive_exactly(int(length[1]) if length else 0)
            if reply.status is not None:
                await stream.send(_as_http(reply))
            elif reply.body == "silent":
                await anyio.sleep_forever()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as answers:
        if reply.body == "refused" and reply.status is None:
            await listener.aclose()
        else:
            answers.start_soon(listener.serve, answer)
        yield f"http://127.0.0.1:{port}"
        answers.cancel_scope.cancel()


def _as_http(reply: Reply) -> bytes:
    body = reply.body.encode()
    headers = {**reply.headers, "Content-Length": str(len(body)), "Connection": "close"}
    lines = [f"HTTP/1.1 {reply.status} -", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body
