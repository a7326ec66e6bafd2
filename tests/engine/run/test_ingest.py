from __future__ import annotations

from asyncio import CancelledError
from dataclasses import dataclass
from decimal import Decimal
from itertools import count
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from anyio import CancelScope, from_thread

from orchestrator import Job
from orchestrator.domain.errors import UsageError
from orchestrator.domain.item import File
from orchestrator.domain.run import Plan
from orchestrator.engine.progress import Progress
from orchestrator.engine.run import ingest, snapshot
from orchestrator.engine.run.snapshot import Snapshot
from orchestrator.sinks import JsonlSink
from orchestrator.sources import IterableSource, JsonlSource, ParquetSource, TextSource
from tests.engine.scripted import Scripted, run
from tests.snapshots import chunks_of, items_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from orchestrator.store import Store
    from orchestrator.store.row_classes import NewItem


def items_of(rows: list[dict[str, object]], *, key: str | None = None, request: object = "{text}") -> list[NewItem]:
    job = Job("j", IterableSource(rows, id=key), Scripted(), JsonlSink("unused.jsonl", keep=["n"]), request=request)
    return items_in(Snapshot(job, {"model": "m"}, None))


def test_without_an_id_column_the_id_is_the_content_and_duplicates_are_numbered() -> None:
    first, second, again = items_of([{"text": "a"}, {"text": "b"}, {"text": "a"}])
    assert len({first.item_id, second.item_id}) == 2
    assert again.item_id == f"{first.item_id}-2"
    assert items_of([{"text": "b"}, {"text": "a"}])[1].item_id == first.item_id


async def test_a_cancellation_ends_reading_after_the_row_in_hand(store: Store, tmp_path: Path) -> None:
    read: list[int] = []

    class Endless:
        def __iter__(self) -> Iterator[dict[str, object]]:
            for number in count():
                read.append(number)
                if number == 3:
                    from_thread.run_sync(reading.cancel)
                    from_thread.run_sync(lambda: None)
                yield {"id": number, "text": "t"}

    job = Job("j", IterableSource(Endless(), id="id"), Scripted(), JsonlSink(tmp_path / "o.jsonl"))
    with CancelScope() as reading:
        await ingest.plan(Snapshot(job, {}, 10_000_000), store, Progress())
    assert reading.cancelled_caught
    assert len(read) < snapshot.CHUNK_ROWS


@pytest.mark.parametrize("between", [1, 499, 5000])
@pytest.mark.parametrize("last", ["a", "c"])
async def test_duplicate_ids_are_refused_with_their_rows(store: Store, tmp_path: Path, between: int, last: str) -> None:
    others: list[dict[str, object]] = [{"k": f"other {number}", "text": "b"} for number in range(between)]
    rows: list[dict[str, object]] = [{"k": 7, "text": "a"}, *others, {"k": "7", "text": last}, *others[:1]]
    job = Job("j", IterableSource(rows, id="k"), Scripted(), JsonlSink(tmp_path / "o.jsonl"))
    twice = rf"id '7' is in rows 1 and {between + 2}; make them unique"
    with pytest.raises(UsageError, match=twice):
        await ingest.plan(Snapshot(job, {}, None), store, Progress())
    for _ in range(2):  # the second time, rows before it are known
        with pytest.raises(UsageError, match=twice):
            await run(job, store)


@pytest.mark.parametrize(
    "row",
    [
        {"text": "a", "n": Decimal("1.5")},
        {"text": "a", "n": {1, 2}},
        {"text": "a", 5: "number as a name"},
        {"text": "a", "n": 2**80},
        {"text": "lone \ud800 surrogate"},
        {"text": None, "n": 1},
        {"n": object()},
    ],
)
def test_a_row_with_values_that_json_lacks_is_still_an_item(row: dict[str, object]) -> None:
    bad, good = items_of([row, {"text": "good", "n": 1}])
    assert good.request == '"good"'
    assert (bad.request is None) == (bad.unreadable is not None)


@pytest.mark.parametrize(("value", "request_"), [({1, 2}, {"inputs": "{n}"}), ({5: "a"}, "{text}")])
def test_the_column_whose_value_json_lacks_is_named(value: object, request_: object) -> None:
    bad, _ = items_of([{"text": "a", "n": value}, {"text": "good", "n": 1}], request=request_)
    assert bad.unreadable is not None
    assert bad.unreadable.startswith("no request could be made: column 'n': TypeError: ")


def test_data_that_looks_like_a_file_in_a_request_is_refused_and_never_read() -> None:
    lookalike = {"$file": "/etc/passwd", "sha256": "0" * 64, "content_type": "image/png"}
    bad, _ = items_of([{"text": lookalike}, {"text": "good"}], request={"inputs": ["{text}"]})
    assert bad.unreadable is not None
    assert (
        "column 'text': TypeError: an object with the keys $file, content_type, sha256 stands for a file: rename one"
        in bad.unreadable
    )


@dataclass(frozen=True)
class Question:
    text: str
    page: File


@pytest.mark.parametrize("request_", ["{file}", {"inputs": "{file}"}, lambda row: Question("what?", row["file"])])
def test_a_file_in_a_request_is_identified_by_its_content(request_: object) -> None:
    rows = [
        File(f"/{place}/a.png", digest * 64, "image/png")
        for place, digest in (("here", "a"), ("there", "a"), ("here", "b"))
    ]
    here, there, other = items_of(
        [{"k": number, "file": file} for number, file in enumerate(rows)], key="k", request=request_
    )
    assert '"$file":"/here/a.png"' in str(here.request)
    assert here.request != there.request
    assert here.hash == there.hash != other.hash


SCHEMA = {"reasoning": {"type": "string"}, "answer": {"type": "string"}}


def test_keys_are_stored_in_their_order_and_sorted_only_for_the_hash() -> None:
    given, other = ({"z": 1, "schema": dict(pairs)} for pairs in (SCHEMA.items(), reversed(SCHEMA.items())))
    rows: list[dict[str, object]] = [{"k": "1", "body": given}, {"k": "2", "body": other}, {"k": "3", "body": given}]
    first, second, third = items_of(rows, key="k", request={"b": "{body}", "a": 0})
    assert first.request == ('{"b":{"z":1,"schema":{"reasoning":{"type":"string"},"answer":{"type":"string"}}},"a":0}')
    assert first.hash == second.hash
    assert first.hash == "09f6cc4eb66f45b0540e759523acc316"  # as it was when keys were stored sorted
    assert first.shares == third.shares != second.shares  # the requests differ, so each is asked


def test_long_integers_are_exact_in_requests_and_kept_columns() -> None:
    (item,) = items_of([{"text": "a", "n": 2**80}], request={"seed": "{n}", "text": "{n}!"})
    assert item.request == f'{{"seed":{2**80},"text":"{2**80}!"}}'
    assert item.kept == f'{{"n":{2**80}}}'


def test_a_kept_file_column_holds_its_path() -> None:
    file = File("/here/a.png", "a" * 64, "image/png")
    asked, seen = items_of([{"text": "a", "n": file}, {"text": "b", "n": Question("what?", file)}])
    assert asked.kept == '{"n":"/here/a.png"}'
    assert seen.kept == '{"n":{"text":"what?","page":"/here/a.png"}}'


def test_an_exception_in_the_request_function_discards_only_its_row() -> None:
    def make(row: Mapping[str, object]) -> object:
        return {"inputs": row["text"][::-1]} if row["n"] else 1 / 0  # type: ignore[index]  # a string here

    bad, good = items_of([{"text": "a", "n": 0}, {"text": "bc", "n": 1}], request=make)
    assert bad.unreadable == "no request could be made: ZeroDivisionError: division by zero"
    assert good.request == '{"inputs":"cb"}'


@pytest.mark.parametrize("error", [SystemExit(3), CancelledError("theirs")])
def test_a_request_function_that_exits_or_is_cancelled_discards_only_its_row(error: BaseException) -> None:
    def make(row: Mapping[str, object]) -> object:
        if row["n"] == 0:
            raise error
        return {"inputs": "x"}

    bad, good = items_of([{"n": 0}, {"n": 1}], request=make)
    assert bad.unreadable == f"no request could be made: {type(error).__name__}: {error}"
    assert good.request == '{"inputs":"x"}'


def test_a_template_that_fits_no_row_is_an_error_of_the_job() -> None:
    with pytest.raises(UsageError, match="column 'txet' of the request template is not among the row's columns"):
        items_of([{"text": "a"}], request="{txet}")
    with pytest.raises(UsageError, match="txet"):
        items_of([{"text": "a"}] * 2000, request="{txet}")
    bad, good = items_of([{"n": 1}, {"text": "a"}])
    assert (bad.unreadable is not None, good.unreadable) == (True, None)


def test_large_rows_make_small_chunks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(snapshot, "CHUNK_BYTES", 1000)
    source = IterableSource([{"text": "x" * 400}] * 10)
    large = Snapshot(Job("j", source, Scripted(), JsonlSink(tmp_path / "o.jsonl")), {}, None)
    assert [len(chunk) for chunk in chunks_of(large)] == [3, 3, 3, 1]


async def test_planning_writes_nothing(store: Store, tmp_path: Path) -> None:
    rows = [{"id": name, "text": name} for name in "abc"]
    job = Job("j", IterableSource(rows, id="id"), Scripted(), JsonlSink(tmp_path / "o.jsonl"))
    for _ in range(2):
        assert await ingest.plan(Snapshot(job, {}, None), store, Progress()) == Plan(new=3)
    assert await store.runs.newest(1) == []


async def test_a_source_that_changes_while_being_read_is_refused_and_can_be_read_again_later(
    store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "rows.txt"
    path.write_text("one\ntwo\n")

    def make(row: Mapping[str, object]) -> object:
        if row["text"] == "two":
            path.write_text("one\ntwo\nthree\n")
        return row["text"]

    job = Job("j", TextSource(path), Scripted(), JsonlSink(tmp_path / "o.jsonl"), request=make)
    with pytest.raises(UsageError, match=r"rows\.txt changed while it was read; run again when it is complete"):
        await run(job, store)
    assert (await run(job, store)).counts.completed == 3


def delivered_ids(rows: list[dict[str, object]], key: str | None, keep: list[str]) -> list[object]:
    """Return what the `id` column of the output would hold."""
    job = Job("j", IterableSource(rows, id=key), Scripted(), JsonlSink("unused.jsonl", keep=keep), request="{text}")
    items = items_in(Snapshot(job, {"model": "m"}, None))
    return [orjson.loads(item.kept or "{}").get("id", item.item_id) for item in items]


def test_an_id_keeps_its_type_in_the_output_and_is_text_in_the_ledger() -> None:
    given: list[object] = ["a", 7, 2.0, np.int64(9), UUID(int=5), Decimal("1.50")]
    rows: list[dict[str, object]] = [{"nr": value, "text": "t"} for value in given]
    assert [item.item_id for item in items_of(rows, key="nr")] == ["a", "7", "2", "9", str(UUID(int=5)), "1.50"]
    assert delivered_ids(rows, "nr", []) == ["a", 7, 2.0, 9, str(UUID(int=5)), "1.50"]


def test_a_kept_id_is_the_column_of_the_row_if_it_has_one() -> None:
    rows: list[dict[str, object]] = [
        {"nr": 1, "id": "x", "text": "t"},
        {"nr": 2, "text": "t"},
        {"nr": 3, "id": None, "text": "t"},
    ]
    assert delivered_ids(rows, "nr", ["id"]) == ["x", 2, None]
    assert delivered_ids(rows[:1], None, ["id"]) == ["x"]


def test_ids_of_a_wrong_type_in_every_row_are_a_configuration_error() -> None:
    with pytest.raises(UsageError, match=r"row 1 has a list in the id column 'k', .*; correct `id` in the job file"):
        items_of([{"k": [1], "text": "a"}, {"k": [2], "text": "b"}], key="k")
    bad, good = items_of([{"k": [1], "text": "a"}, {"k": 2, "text": "b"}], key="k")
    assert bad.unreadable
    assert good.item_id == "2"


def test_an_id_from_the_content_does_not_depend_on_the_folder(tmp_path: Path) -> None:
    def ids(source: JsonlSource) -> list[str]:
        job = Job("j", source, Scripted(), JsonlSink("unused.jsonl"), request="{text}")
        return [item.item_id for item in items_in(Snapshot(job, {"model": "m"}, None))]

    (tmp_path / "year=2024").mkdir()
    (tmp_path / "year=2024" / "in.jsonl").write_text('{"text":"a"}')
    assert ids(JsonlSource(tmp_path / "*" / "in.jsonl")) == ids(JsonlSource(tmp_path / "year=2024" / "in.jsonl"))


def test_32_bit_floats_are_kept_short_and_sent_unchanged(tmp_path: Path) -> None:
    narrow = pa.array([0.1], pa.float32())
    table = pa.table({"text": ["a"], "n": narrow, "v": pa.array([[0.1, 0.5]], pa.list_(pa.float32()))})
    pq.write_table(table, tmp_path / "in.parquet")
    sink = JsonlSink("unused.jsonl", keep=["n", "v"])
    job = Job("j", ParquetSource(tmp_path / "in.parquet"), Scripted(), sink, request={"text": "{text}", "n": "{n}"})
    (item,) = items_in(Snapshot(job, {"model": "m"}, None))
    assert item.kept == '{"n":0.1,"v":[0.1,0.5]}'
    assert item.request == '{"text":"a","n":0.10000000149011612}'
