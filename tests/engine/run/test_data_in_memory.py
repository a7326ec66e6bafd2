"""Jobs whose rows come from tables in memory, and whose outputs have a declared type."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator import Job
from orchestrator.domain.errors import UsageError
from orchestrator.engine.progress import Progress
from orchestrator.engine.run.ingest import plan
from orchestrator.engine.run.snapshot import Snapshot
from orchestrator.sinks import ParquetSink
from orchestrator.sources import ArrowSource, ParquetSource
from tests.engine.scripted import Scripted, run

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.ports import Source
    from orchestrator.store import Store

ROWS = pa.table({"id": [1, 2, 3], "text": ["one", "two", "three"], "day": pa.array([0, 1, 2], pa.date32())})


@pytest.mark.parametrize("by", ["id", None])
async def test_rows_that_another_library_holds_or_a_file_has_are_not_asked_again(
    store: Store, tmp_path: Path, by: str | None
) -> None:
    endpoint = Scripted()
    sink = ParquetSink(tmp_path / "out.parquet", keep=["day"])
    job = Job("talk", ArrowSource(ROWS.to_reader(max_chunksize=2), id=by), endpoint, sink, request="{day}: {text}")
    assert (await plan(Snapshot(job, job.identity(), None), store, Progress())).to_ask == 3
    await run(job, store)
    await run(job, store)  # of a stream that can be read only once
    assert len(endpoint.texts) == 3
    pq.write_table(ROWS, tmp_path / "in.parquet")
    with duckdb.connect() as connection:
        connection.register("held", ROWS)
        sources: list[Source] = [ArrowSource(pl.from_arrow(ROWS), by), ArrowSource(connection.table("held"), by)]
        for source in (*sources, ParquetSource(tmp_path / "in.parquet", by)):
            await run(replace(job, source=source), store)
    assert len(endpoint.texts) == 3
    assert pq.read_table(tmp_path / "out.parquet")["day"].to_pylist() == ["1970-01-01", "1970-01-02", "1970-01-03"]


async def test_an_output_that_does_not_fit_is_delivered_without_asking_once_the_schema_or_parse_is_corrected(
    store: Store, tmp_path: Path
) -> None:
    endpoint = Scripted()
    sink = ParquetSink(tmp_path / "out.parquet", schema=pa.schema([("length", pa.int64())]))

    def length(answer: str) -> object:
        return {"length": len(answer) if len(answer) < 5 else "long"}

    job = Job("talk", ArrowSource(ROWS, id="id"), endpoint, sink, parse=length)
    with pytest.raises(UsageError, match=r"item 3: output\.length is \"long\", which is not exactly .* int64"):
        await run(job, store)
    assert not (tmp_path / "out.parquet").exists()
    wider = ParquetSink(tmp_path / "out.parquet", schema=pa.schema([("length", pa.json_())]))
    await run(replace(job, sink=wider), store)
    assert pq.read_table(tmp_path / "out.parquet")["output"].to_pylist()[2] == {"length": '"long"'}

    def strict(answer: str) -> object:
        assert len(answer) < 5, "too long"
        return {"length": len(answer)}

    result = await run(replace(job, parse=strict), store)
    assert (result.counts.completed, result.counts.discarded) == (2, 1)
    assert pq.read_table(tmp_path / "out.parquet")["output"].to_pylist() == [{"length": 3}, {"length": 3}]
    assert len(endpoint.texts) == 3
