"""What a run takes over from the run before is what reading every row would have made."""

from __future__ import annotations

import re
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import numpy as np
import orjson
import pytest
from anyio import to_thread
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator import Job
from orchestrator.domain.attempt import Completed, Discarded, Outcome, RetryLater
from orchestrator.domain.errors import FailureKind, RequestFailed, UsageError
from orchestrator.domain.run import Plan, RunState, Spec
from orchestrator.engine.progress import Progress
from orchestrator.engine.run import ingest, snapshot
from orchestrator.engine.run.snapshot import Snapshot
from orchestrator.sinks import JsonlSink
from orchestrator.sources import JsonlSource
from orchestrator.store import Store, snapshots
from orchestrator.store.items import Settlement
from tests.engine.scripted import Scripted
from tests.ledgers import new_ledger
from tests.store.counters import check_counters
from tests.store.places import IN_MEMORY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.domain.item import Row
    from orchestrator.domain.run import Run

FAILURE = RequestFailed(FailureKind.UNAVAILABLE, "busy", status=503)
OUTCOMES: dict[str, Outcome] = {
    "answer": Completed('"x"'),
    "fail": RetryLater(0.0, FAILURE),
    "discard": Discarded(FAILURE),
}
IDENTITY = {"model": "m"}
DUMPS = {
    "items": "SELECT job_id, item_id, hash, request, forgiven FROM item ORDER BY 1, 2, 3",
    # a run whose source was refused is never continued
    "members": """
        SELECT m.id, i.item_id, i.hash, m.kept, s.item_id, s.hash
        FROM member m JOIN item i ON i.key = m.item_key LEFT JOIN item s ON s.key = m.same_as
        WHERE EXISTS (SELECT 1 FROM run r WHERE r.id = m.run_id AND r.plan IS NOT NULL) ORDER BY m.id
    """,
    "chunks": """
        SELECT run_id, lo, hi, state, completed, discarded, tokens_in, texts FROM chunk ORDER BY 1, 2
    """,
    "results": """
        SELECT i.item_id, i.hash, r.outcome, r.output FROM result r JOIN item i ON i.key = r.item_key ORDER BY 1, 2
    """,
    "attempts": """
        SELECT i.item_id, i.hash, a.number, a.kind, a.message FROM attempt a JOIN item i ON i.key = a.item_key
        ORDER BY 1, 2, 3
    """,
    "runs": "SELECT id, state, total, plan, input_sha256, made_as FROM run ORDER BY 1",
}


@dataclass(frozen=True)
class Night:
    """What the file holds, in which way each item that can be asked is settled, and whether the run ends early."""

    lines: Sequence[bytes]
    ways: Sequence[str]
    limit: int | None = None
    plans: bool = False


def line(key: str, text: str, keys: str = "ab") -> bytes:
    body = {name: {"a": text, "b": 1}[name] for name in keys}
    return orjson.dumps({"id": key, "body": body, "n": key * 2})


def turned(one: bytes) -> bytes:
    """Return the line with the keys of its request in another order, which is the same item."""
    return re.sub(rb'{"a":("."),"b":1}', rb'{"b":1,"a":\1}', one)


KEYS = st.sampled_from([f"k{number}" for number in range(14)])
LINES = st.builds(line, KEYS, st.sampled_from(["x", "y", "z"]), st.sampled_from(["ab", "ab", "ba"]))
BROKEN = st.sampled_from([b"{broken", b"[1]", b'{"n": 1}', b'{"id": "k1"}'])
TEXTS = st.sampled_from("xyzuvw")
START = st.lists(TEXTS, min_size=2, max_size=14).map(lambda texts: [line(f"k{n}", one) for n, one in enumerate(texts)])
WAYS = st.lists(st.sampled_from(["answer"] * 5 + ["fail", "discard", "leave"]), min_size=1, max_size=7)


@st.composite
def nights(draw: st.DrawFn) -> list[Night]:
    """A file that changes a little from night to night, in any way."""
    lines = list(draw(START))
    found = []
    for _ in range(draw(st.integers(2, 5))):
        limit = draw(st.sampled_from([None, None, None, 5]))
        found.append(Night(tuple(lines), tuple(draw(WAYS)), limit, draw(st.booleans())))
        for _ in range(draw(st.integers(0, 2))):
            new = draw(st.one_of(LINES, LINES, BROKEN))
            place = draw(st.integers(0, len(lines)))
            match draw(
                st.sampled_from(["append", "edit", "change", "change", "turn", "turn", "insert", "delete", "cut"])
            ):
                case "append":
                    lines.append(new)
                case "edit":
                    lines[place : place + 1] = [new]
                case "change":
                    lines[place : place + 1] = [line(f"k{place}", draw(TEXTS))]
                case "turn":
                    lines[place : place + 1] = [turned(one) for one in lines[place : place + 1]]
                case "insert":
                    lines.insert(place, new)
                case "delete":
                    del lines[place : place + 1]
                case _:
                    del lines[place:]
    return found


async def a_night(store: Store, path: Path, night: Night, number: int) -> object:
    """Read the file into a run and settle its items; return what the plan was, or why there is no run."""
    await to_thread.run_sync(path.write_bytes, b"".join(one + b"\n" for one in night.lines))
    sink, request = JsonlSink(path.with_name("o.jsonl"), keep=["n"]), {"body": "{body}"}
    job = Job("j", JsonlSource(path, id="id"), Scripted(), sink, request=request, allow_empty=True)
    me = await store.runs.register(host="h", pid=1, pid_started=0.0, lease=600)
    said: list[object] = []
    if night.plans:
        try:
            said.append(await ingest.plan(Snapshot(job, IDENTITY, night.limit), store, Progress()))
        except UsageError as error:
            said.append(str(error))
    run = await store.runs.take(Spec("j", f"{number}", None), me)
    try:
        said.append(await ingest.ingest(Snapshot(job, IDENTITY, night.limit), run, store, Progress()))
    except UsageError as error:
        await store.runs.leave(me)
        return [*said, str(error)]
    await settle(store, run, me, night.ways)
    await store.runs.end(run.id, me, RunState.STOPPED)
    await store.runs.leave(me)
    await check_counters(store)
    return said


async def settle(store: Store, run: Run, me: int, ways: Sequence[str]) -> None:
    leased = await store.items.lease(run.id, me, 1000)
    chosen = zip((item for part in leased for item in part.items), cycle(ways), strict=False)
    settled = [Settlement(item, OUTCOMES[way], 0.0) for item, way in chosen if way != "leave"]
    await store.items.settle(settled, [one.item.lease for one in settled])
    await store.items.release(me)


async def dumped(store: Store) -> dict[str, list[object]]:
    async with store.database.read() as connection:
        return {name: [tuple(row) for row in (await connection.execute(sql)).all()] for name, sql in DUMPS.items()}


async def both(found: Sequence[Night], folder: str) -> None:
    async with Store.open(f"{folder}/fast.db") as fast, Store.open(f"{folder}/general.db") as general:
        for number, night in enumerate(found):
            path = Path(folder, "in.jsonl")
            said = await a_night(fast, path, night, number)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(ingest, "_before", no_run_before)
                assert await a_night(general, path, night, number) == said
            assert await dumped(fast) == await dumped(general)


async def no_run_before(*_arguments: object) -> None:
    return None


@settings(max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nights(), st.sampled_from([1, 2, 3]), st.sampled_from([3, 50_000]), st.sampled_from([1, 2, 5000]))
def test_taking_over_chunks_and_reading_every_row_leave_the_same_ledger(
    found: list[Night], chunk_rows: int, most_added: int, pairs: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot, "CHUNK_ROWS", chunk_rows)
        patch.setattr(ingest, "_MOST_ADDED", most_added)
        patch.setattr(snapshots, "_PAIRS", pairs)
        with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
            for name in ("fast", "general"):
                new_ledger(Path(folder, f"{name}.db"))
            anyio.run(both, found, folder)


async def read_again(store: Store, path: Path, lines: Sequence[bytes], request: object = "{n}") -> tuple[int, Plan]:
    """Return how many rows are parsed by a run over these lines, and its plan."""
    await to_thread.run_sync(path.write_bytes, b"".join(lines))
    parsed = []

    def counted(source: JsonlSource, unit: str, number: int, text: bytes) -> Row:
        parsed.append(number)
        return parse(source, unit, number, text)

    parse = JsonlSource._row
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JsonlSource, "_row", counted)
        plan = await a_run(store, JsonlSource(path, id="id"), request)
    return len(parsed), plan


async def a_run(store: Store, source: JsonlSource, request: object) -> Plan:
    """Read the source into a new run, and answer all its items."""
    job = Job("j", source, Scripted(), JsonlSink(Path(source.path).with_name("o.jsonl")), request=request)
    me = await store.runs.register(host="h", pid=1, pid_started=0.0, lease=600)
    run = await store.runs.take(Spec("j", f"{time.time()}", None), me)
    try:
        plan = await ingest.ingest(Snapshot(job, IDENTITY, None), run, store, Progress())
        await settle(store, run, me, ["answer"])
        return plan
    finally:
        await store.runs.leave(me)


async def test_only_chunks_with_other_texts_are_parsed(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    lines = [b'{"id": "k%d", "n": "%d"}\n' % (number, number) for number in range(3000)]
    assert await read_again(store, path, lines) == (3000, Plan(new=3000))
    assert await read_again(store, path, lines) == (0, Plan(reused=3000))
    lines[700] = b'{"id": "k700", "n": "other"}\n'
    assert await read_again(store, path, lines) == (500, Plan(reused=2999, edited=1))
    lines.append(b'{"id": "new", "n": "7"}\n')
    assert await read_again(store, path, lines) == (1, Plan(reused=3000, new=1))
    lines.append(b'{"id": "newer", "n": "8"}\n')
    assert await read_again(store, path, lines) == (2, Plan(reused=3001, new=1))
    lines[20] = b'{"id": "k20", "n": broken}\n'
    assert await read_again(store, path, lines) == (502, Plan(reused=3001, new=1))


async def test_a_row_that_stands_elsewhere_has_every_row_read(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    lines = [b'{"id": "k%d", "n": "%d"}\n' % (number, number) for number in range(3000)]
    await read_again(store, path, lines)
    parsed, plan = await read_again(store, path, [b'{"id": "first", "n": "-1"}\n', *lines])
    assert (parsed > 3001, plan) == (True, Plan(reused=3000, new=1))
    with pytest.raises(UsageError, match=r"id 'k1' is in rows 3 and 3001; make them unique"):
        await read_again(store, path, [b'{"id": "first", "n": "-1"}\n', *lines[:2999], b'{"id": "k1", "n": "x"}\n'])


async def test_another_job_and_a_function_have_every_row_read(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    lines = [b'{"id": "k%d", "n": "%d"}\n' % (number, number) for number in range(1000)]
    await read_again(store, path, lines)
    assert await read_again(store, path, lines, "number {n}") == (1000, Plan(edited=1000))
    for _ in range(2):
        assert (await read_again(store, path, lines, lambda row: row["n"]))[0] == 1000


class Shouting(JsonlSource):
    """A user's source that makes other rows of the lines."""

    @contextmanager
    def rows(self) -> Iterator[Iterator[Row]]:
        with JsonlSource.rows(self) as rows:
            yield (replace(row, columns={"n": str(row.columns["n"]).upper()}) for row in rows)


async def test_a_source_of_another_class_has_every_row_read(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    lines = [b'{"id": "k%d", "n": "text %d"}\n' % (number, number) for number in range(1500)]
    await to_thread.run_sync(path.write_bytes, b"".join(lines))
    assert await a_run(store, Shouting(path, id="id"), "{n}") == Plan(new=1500)
    lines[700] = b'{"id": "k700", "n": "other"}\n'
    await to_thread.run_sync(path.write_bytes, b"".join(lines))
    assert await a_run(store, Shouting(path, id="id"), "{n}") == Plan(reused=1499, edited=1)


async def test_all_of_a_large_constant_in_the_template_counts(store: Store, tmp_path: Path) -> None:
    vector = np.zeros(5000)
    lines = [b'{"id": "k%d", "n": "%d"}\n' % (number, number) for number in range(1000)]
    await read_again(store, tmp_path / "in.jsonl", lines, {"n": "{n}", "v": vector})
    vector[2500] = 1.0
    again = await read_again(store, tmp_path / "in.jsonl", lines, {"n": "{n}", "v": vector})
    assert again == (1000, Plan(edited=1000))
