"""What a server answers as it is: case by case, while it loads, when it has too much to do, and as it ends."""

from __future__ import annotations

import re
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import orjson

from orchestrator.kinds import WIRES, Writer
from tests.wires.servers.asking import PATIENCE, asked, got
from tests.wires.servers.programs import HERE, HOME, LOADED, Program, Running
from tests.wires.servers.recording import Record, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from orchestrator.wires import Wire
    from tests.wires.servers.cases import Case

LONG = 200  # characters of a text, or entries of a list, above which a request is kept in short
LARGE = 50_000  # characters of an answer that is not kept
MOST = 40  # requests at once, to overload a server


# -- what differs from time to time ------------------------------------------------------------------------------------

_SAME: Sequence[tuple[str, str]] = (
    (re.escape(sys.executable), "python"),
    (re.escape(str(HERE)), "/programs"),
    (re.escape(str(HOME)), "/servers"),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:8000"),
    (
        r"\b(chatcmpl|cmpl|resp|msg|embd|embeddings|rerank|score|call|fc|infinity|req|rs|modelperm|chatcmpl-tool)([-_])[0-9A-Za-z_-]{8,}",
        r"\1\g<2>1",
    ),
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "00000000-0000-0000-0000-000000000001"),
    (r'("(?:created|created_at|completed_at|loaded_at|unix)": ?)[\d.]+', r"\g<1>1"),
    (r'("(?:[a-z_]+_(?:ms|per_second|seconds)|t_start|t_[a-z]+)": ?)[\d.e+-]+', r"\g<1>1.0"),
    (r"(?<=\[)((?:\s*-?\d[\d.e-]*,){8})(?:\s*-?\d[\d.e-]*,?){9,}(?=\])", r"\1"),
    (r'"(tool_call_)?id": ?"[0-9A-Za-z]{9,}"', r'"\1id":"1"'),
    (r"0x[0-9a-f]{6,}", "0x1"),
    (r"\b[0-9a-f]{64}\b", "1"),
    (r'(?:"a",){50,}', '"a",'),
)


def normal(text: str) -> str:
    """Return a body without what differs each time: ports, paths, ids, times; long lists of numbers are cut."""
    for pattern, instead in _SAME:
        text = re.sub(pattern, instead, text)
    return re.sub(r",(?=\])", "", text)


def _metrics(text: str) -> str:
    """Leave out the lines that no reader of ours needs: explanations, histograms, the process."""
    boring = re.compile(r"^(#|\w[\w:]*_bucket\{|python_|process_|http_|\w+_created)")
    return "\n".join(line for line in text.splitlines() if not boring.match(line)) + "\n"


def _short(value: Any) -> Any:
    match value:
        case str() if len(value) > LONG:
            return f"{value[:20]}... ({len(value):,} characters)"
        case list():
            return [_short(one) for one in (value if len(value) < LONG else value[:2])]
        case dict():
            return {name: _short(one) for name, one in value.items()}
    return value


def in_json(wire: Wire) -> Mapping[str, Any]:
    """Return the wire as in a settings file."""

    def refuse(*_: object) -> Mapping[str, object]:
        raise AssertionError

    form: Mapping[str, Any] = orjson.loads(normal(orjson.dumps(Writer(refuse).kind(WIRES, wire, [])).decode()))
    return form


def record(
    case: str, reply: Reply, wire: Wire | None = None, requests: Sequence[object] = (), route: str = ""
) -> Record:
    """Return the record of an answer, made the same each time."""
    body = _metrics(reply.body) if route == "/metrics" and reply.status == 200 else reply.body
    headers = {name: normal(value) for name, value in reply.headers.items()}
    kept = Reply(reply.status, headers, normal(body))
    asked = orjson.loads(normal(orjson.dumps(_short(list(requests))).decode()))
    return Record(case, kept, {} if wire is None else in_json(wire), asked, route)


# -- states ------------------------------------------------------------------------------------------------------------


class Watch:
    """Looks at routes and asks again and again, and keeps each answer that differs from those before."""

    def __init__(
        self,
        url: str,
        state: str,
        wire: Wire,
        request: object,
        routes: Sequence[str],
        patience: float = PATIENCE,
    ) -> None:
        self.url, self.state, self.wire, self.request, self.routes = url, state, wire, request, routes
        self.patience = patience
        self.records: dict[tuple[str, str, str, int | str, str], Record] = {}

    def look(self) -> None:
        """Look at every route and ask once."""
        for route in self.routes:
            self.keep(record(self.state, got(self.url, route), route=route))
        self.ask()

    def ask(self) -> Reply:
        """Ask once."""
        reply = asked(self.url, self.wire, [self.request], self.patience)
        self.keep(record(self.state, reply, self.wire, [self.request]))
        return reply

    def keep(self, one: Record) -> None:
        """Keep a record, unless there is one like it."""
        said = "" if one.reply.status == 200 else re.sub(r"\d+", "0", one.reply.body[:60])
        self.records.setdefault((*one.key, said), one)


def loading(running: Running, program: Program, wire: Wire, request: object, routes: Sequence[str]) -> Iterator[Record]:
    """Yield what a server that was just started answers until it is ready."""
    watch = Watch(running.url, "while loading", wire, request, routes)
    deadline = time.monotonic() + LOADED
    while got(running.url, program.health).status != 200:
        if time.monotonic() > deadline or running.process.poll() is not None:
            raise SystemExit(f"{program.place} does not start")
        watch.look()
        time.sleep(0.02)
    yield from (one for one in watch.records.values() if one.reply.status != 200)


def ending(
    running: Running, wire: Wire, long: object, routes: Sequence[str], state: str, end: Callable[[Running], None]
) -> Iterator[Record]:
    """Yield what a server answers after `end`, with requests in flight and to others that come then."""
    watch = Watch(running.url, state, wire, long, routes)
    flying = Watch(running.url, f"{state}, in flight", wire, long, (), patience=20.0)
    threads = [threading.Thread(target=flying.ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.4)
    end(running)
    until = time.monotonic() + 12
    while time.monotonic() < until:
        for route in routes:
            watch.keep(record(state, got(running.url, route), route=route))
        watch.keep(record(state, asked(running.url, wire, [long], patience=5.0), wire, [long]))
        if running.process.poll() is not None and not any(thread.is_alive() for thread in threads):
            break
        time.sleep(0.02)
    for thread in threads:
        thread.join()
    yield from flying.records.values()
    yield from watch.records.values()


def overloaded(url: str, wire: Wire, request: object, routes: Sequence[str], many: int = MOST) -> Iterator[Record]:
    """Yield what a server answers to many requests at once."""
    watch = Watch(url, "too many at once", wire, request, routes)
    threads = [threading.Thread(target=watch.ask) for _ in range(many)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    for route in routes:
        watch.keep(record(watch.state, got(url, route), route=route))
    for thread in threads:
        thread.join()
    yield from watch.records.values()


def ready(url: str, routes: Iterable[str]) -> Iterator[Record]:
    """Yield what the routes of a server say that is ready."""
    for route in routes:
        yield record("ready", got(url, route), route=route)


def all_of(url: str, *families: Iterable[Case]) -> Iterator[Record]:
    """Yield what a server answers in each case."""
    for family in families:
        for case, wire, requests in family:
            sys.stderr.write(f"  {case}\n")
            reply = asked(url, wire, requests)
            if len(reply.body) < LARGE and reply.body != "silent":
                yield record(case, reply, wire, requests)
