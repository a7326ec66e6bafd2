"""The result of a run: its numbers, and its rows out of the ledger, as dicts and as tables of other libraries."""

from __future__ import annotations

import resource
import sys
import tracemalloc
from contextlib import closing
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pytest

from orchestrator import Backoff, Job, Policy, connect, run
from orchestrator.endpoints import HttpEndpoint
from orchestrator.errors import LedgerError, UsageError
from orchestrator.sinks import JsonlSink
from orchestrator.sources import ArrowSource, IterableSource
from orchestrator.store.sqlite import DRIVER
from tests.commands import rows
from tests.ledgers import new_ledger
from tests.servers import answer_to

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import InferenceServer

ROWS: list[dict[str, object]] = [*rows(range(5)), {"id": "bad", "text": "poison"}]
ANSWERED = [
    {"id": f"i{number}", "text": f"text of {number}", "output": {"said": answer_to(f"text of {number}"), "pad": ""}}
    for number in range(5)
]


@pytest.fixture
def job(tmp_path: Path, server: InferenceServer) -> Job:
    sink = JsonlSink(tmp_path / "out.jsonl", keep=["text"])
    policy = Policy(concurrency=2, backoff=Backoff(first=0.01))
    return Job("talk", IterableSource(ROWS, id="id"), HttpEndpoint(server.url), sink, policy=policy)


def test_a_result_has_the_numbers_of_its_run_and_its_rows_in_input_order(job: Job, tmp_path: Path) -> None:
    result = run(job, ledger=tmp_path / "ledger.db")
    assert (result.run_id, result.job, len(result)) == (1, "talk", 5)
    assert (result.counts.completed, result.counts.discarded, result.cost, result.awake) == (5, 1, 0.0, 0.0)
    assert [(cause.items, cause.status) for cause in result.causes] == [(1, 400)]
    assert result.manifest["counts"] == {"inputs": 6, "completed": 5, "discarded": 1, "skipped": 0}
    assert list(result) == list(result) == ANSWERED
    (discarded,) = result.discarded
    assert (discarded["id"], discarded["text"], discarded["attempts"]) == ("bad", "poison", 1)
    assert discarded["error"]["status"] == 400
    assert repr(result) == "<Result of run 1 of talk: 6 items: 5 completed, 1 discarded; awake 0.0 s, $0.00>"


@pytest.mark.parametrize(
    ("options", "said"),
    [({"limit": 0}, "limit must be at least 1, not 0"), ({"reuse": "talk"}, "reuse='talk' is one text: give a list")],
)
def test_options_that_the_command_line_would_refuse_are_refused(
    job: Job, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        run(job, ledger=tmp_path / "ledger.db", **options)
    assert not (tmp_path / "ledger.db").exists()


def test_rows_are_found_by_number_and_slice_as_in_a_list(job: Job, tmp_path: Path) -> None:
    result = run(job, ledger=tmp_path / "ledger.db")
    assert (result[0], result[-1], result[2:], result[::-2]) == (
        ANSWERED[0],
        ANSWERED[-1],
        ANSWERED[2:],
        ANSWERED[::-2],
    )
    assert result[9:] == []
    assert [row["id"] for row in result.discarded[:1]] == ["bad"]
    with pytest.raises(IndexError):
        result[5]
    with pytest.raises(TypeError, match="by number or slice, not by 'output'"):
        result["output"]  # type: ignore[call-overload]  # what a user may try


def test_a_row_is_found_in_a_later_chunk_of_a_long_run(tmp_path: Path) -> None:
    ledger = _filled(tmp_path / "ledger.db", 1000)
    with closing(DRIVER.connect(ledger)) as connection, connection:
        connection.executescript("""
            UPDATE result SET outcome = 'discarded', output = NULL WHERE item_key % 4 = 1;
            UPDATE chunk SET hi = 500, completed = 375, discarded = 125;
            INSERT INTO chunk (run_id, lo, hi, state, completed, discarded) VALUES (1, 500, 1000, 'done', 375, 125);
        """)
    with connect(ledger) as app:
        result = app.result("talk")
    rows = list(result)
    assert all(result[number] == rows[number] for number in (0, 374, 375, 600, 749))
    assert result[370:380] == rows[370:380]


def test_the_manifest_has_the_prompt_of_a_job_that_only_this_program_has(job: Job, tmp_path: Path) -> None:
    prompt = {"inputs": "Rate: {text}"}
    result = run(replace(job, source=IterableSource(ROWS, id="id"), request=prompt), ledger=tmp_path / "ledger.db")
    assert result.manifest["request"] == prompt


def test_the_rows_are_tables_of_other_libraries_with_the_same_types_and_values(job: Job, tmp_path: Path) -> None:
    result = run(job, ledger=tmp_path / "ledger.db")
    assert result.to_arrow().to_pylist() == ANSWERED
    assert result.to_pandas().to_dict("records") == ANSWERED
    assert result.to_polars().to_dicts() == ANSWERED
    assert list(result.to_dataset()) == ANSWERED
    with duckdb.connect() as database:
        assert database.execute("SELECT max(id), count(*) FROM result").fetchall() == [("i4", 5)]
    assert result.discarded.to_arrow()["attempts"].to_pylist() == [1]


def test_a_result_is_the_source_of_another_job(job: Job, tmp_path: Path) -> None:
    result = run(job, ledger=tmp_path / "ledger.db")
    with ArrowSource(result, id="id").rows() as found:
        assert [(row.id, row.columns) for row in found] == [(row["id"], row) for row in ANSWERED]


def test_the_type_of_the_outputs_can_be_declared_for_a_table(job: Job, tmp_path: Path) -> None:
    result = run(job, ledger=tmp_path / "ledger.db")
    kind = pa.struct([("said", pa.large_string()), ("pad", pa.string()), ("score", pa.float64())])
    table = result.to_arrow(schema=pa.schema(list(kind)))
    assert table.schema.field("output").type == kind
    assert table["output"][0].as_py() == ANSWERED[0]["output"] | {"score": None}  # type: ignore[operator]  # a dict
    with pytest.raises(
        UsageError, match=r"item 'i0': output\.said is \".*\", which is not exactly a value of type int64"
    ):
        result.to_arrow(schema={"properties": {"said": {"type": "integer"}, "pad": {}}})


def test_a_later_program_reads_the_result_of_the_latest_run_by_the_name_of_its_job(job: Job, tmp_path: Path) -> None:
    run(job, ledger=tmp_path / "ledger.db")
    with connect(tmp_path / "ledger.db") as app:
        result = app.result("talk")
        (found,) = app.runs()
        assert (found.id, found.state) == (1, "finished")
        status = app.status("talk")
        assert (status.run, status.state, status.counts.discarded) == (found, "finished", 1)
        assert repr(status) == "<Run 1 of talk: finished, 6 items: 5 completed, 1 discarded>"
        with pytest.raises(UsageError, match=r"runs\('talk'\): give how many"):
            app.runs("talk")  # type: ignore[arg-type]  # what a user may try
    assert list(result) == ANSWERED  # also after the application is closed
    assert result.manifest["causes"] == [{"kind": "rejected", "status": 400, "items": 1}]
    assert result.manifest["counts"] == {"inputs": 6, "completed": 5, "discarded": 1, "skipped": 0}


def test_reading_the_rows_of_a_ledger_that_is_gone_or_has_lost_the_run_says_so(job: Job, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    result = run(job, ledger=ledger)
    ledger.rename(tmp_path / "moved.db")
    with pytest.raises(LedgerError, match="is gone, and the rows of run 1 with it: restore it, or run the job again"):
        list(result)
    run(job, ledger=ledger)
    with pytest.raises(UsageError, match="no longer has run 1: run the job again"):
        list(result)


def test_a_library_that_is_missing_is_named_with_the_way_to_install_it(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(job, ledger=tmp_path / "ledger.db")
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(UsageError, match="to_polars needs the package polars: pip install polars"):
        result.to_polars()


def test_a_full_disk_for_the_rows_of_a_table_is_one_line(tmp_path: Path) -> None:
    with connect(_filled(tmp_path / "ledger.db", 1000)) as app:
        result = app.result("talk")
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, most))
    try:
        with pytest.raises(UsageError, match="free some space there, or set TMPDIR") as refusal:
            result.to_arrow()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert "\n" not in str(refusal.value)
    assert len(result.to_arrow()) == 1000


@pytest.mark.untraced
def test_reading_the_rows_takes_the_same_memory_for_any_number_of_them(tmp_path: Path) -> None:
    few, many = (_peak(_filled(tmp_path / f"{count}.db", count), count) for count in (5_000, 50_000))
    assert many < few * 1.5


def _filled(ledger: Path, count: int) -> Path:
    """Make a ledger with a finished run of so many answers, as the store has them."""
    new_ledger(ledger)
    with closing(DRIVER.connect(ledger)) as connection, connection:
        connection.executescript(f"""
            INSERT INTO job (id, name) VALUES (1, 'talk');
            INSERT INTO run (id, job_id, state, fingerprint, spec, total, plan, created_at, finished_at)
            VALUES (1, 1, 'finished', 'f', '{{"keep": ["text"]}}', {count}, '{{}}', 1.0, 2.0);
            WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {count})
            INSERT INTO item (key, job_id, item_id, hash, request) SELECT i + 1, 1, 'i' || i, hex(i), '""' FROM n;
            INSERT INTO result (item_key, outcome, attempts, seconds, finished_at, output)
            SELECT key, 'completed', 1, 0.1, 1.0, '{{"label": "good", "score": 0.5}}' FROM item;
            INSERT INTO member (id, run_id, item_key, kept)
            SELECT (1 << 32) | (key - 1), 1, key, '{{"text": "some text of row"}}' FROM item;
            INSERT INTO chunk (run_id, lo, hi, state, completed) VALUES (1, 0, {count}, 'done', {count});
        """)
    return ledger


def _peak(ledger: Path, count: int) -> int:
    """Return the most memory that reading takes at a time, beyond what was taken before."""
    with connect(ledger) as app:
        result = app.result("talk")
    tracemalloc.start()
    try:
        assert sum(row["output"]["score"] for row in result) == count / 2
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_notebook_shows_that_nothing_was_discarded(tmp_path: Path, server: InferenceServer) -> None:
    result = run(
        Job("talk", IterableSource(rows(range(1)), id="id"), HttpEndpoint(server.url)), ledger=tmp_path / "ledger.db"
    )
    assert "no rows" in result.discarded._repr_html_()


def test_a_notebook_shows_a_result_as_text_only(tmp_path: Path, server: InferenceServer) -> None:
    hostile = "</td><script>alert(1)</script>"
    bad: list[dict[str, object]] = [{"id": "bad", "text": "poison"}, {"id": hostile, "text": "poison"}]
    source = IterableSource([{"id": "h", "text": hostile}, *rows(range(6)), *bad], id="id")
    job = Job("talk", source, HttpEndpoint(server.url))
    result = run(replace(job, keep=["text"]), ledger=tmp_path / "ledger.db")
    html = result._repr_html_()
    assert "9 items: 7 completed, 2 discarded; awake 0.0 s, $0.00" in html
    assert "rejected 400" in html
    assert "and 2 more" in html
    assert html.count(escape(hostile)) == 1
    assert escape(hostile) in result.discarded._repr_html_()
    assert repr(result.discarded) == "<2 discarded rows of run 1 of talk>"
    (tmp_path / "ledger.db").rename(tmp_path / "moved.db")
    assert "is gone" in result._repr_html_()
    assert "<script" not in html + result.discarded._repr_html_()
