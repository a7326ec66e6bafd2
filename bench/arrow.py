"""Rows from tables in memory against the same rows from a Parquet file, and Parquet with types against JSON Lines.

Each measurement is a process of its own; memory is what it allocates (RssAnon), without files that are mapped.
`python -m bench.arrow [ROWS]` prints the table.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.sinks import JsonlSink, ParquetSink
from orchestrator.sources import ArrowSource, ParquetSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from orchestrator import ports

ROWS = 100_000
GROUP = 50_000
PAGE = 500
STEP = 5_000  # rows between two looks at the memory
SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string"}, "score": {"type": "number"}, "tags": {"items": {"type": "string"}}},
}
SOURCES = ["parquet", "Table", "RecordBatchReader", "polars", "pandas", "duckdb", "datasets"]
SINKS = ["jsonl", "types found", "types declared"]


def generate(folder: Path, count: int) -> None:
    """Write rows with an id, a text of 300 characters, a number and a moment: as Parquet, and as Arrow to be mapped."""
    dice = random.Random(7)
    filler = "".join(dice.choices("abcdefgh     ", k=10_000))
    schema = pa.schema(
        {"id": pa.int64(), "text": pa.string(), "score": pa.float64(), "at": pa.timestamp("us"), "n": pa.int64()}
    )
    with (
        pq.ParquetWriter(folder / "rows.parquet", schema) as parquet,
        pa.ipc.new_file(str(folder / "rows.arrow"), schema) as arrow,
    ):
        for start in range(0, count, GROUP):
            ids = range(start, min(start + GROUP, count))
            texts = [f"{number} {filler[place : place + 290]}" for number in ids for place in [dice.randrange(9_000)]]
            columns = [ids, texts, [dice.random() for _ in ids], [number * 1_000_003 for number in ids], ids]
            batch = pa.record_batch(
                [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
            )
            parquet.write_batch(batch)
            arrow.write_batch(batch)


def source(kind: str, folder: Path) -> ports.Source:
    """Return the rows as this library holds them."""
    if kind == "parquet":
        return ParquetSource(folder / "rows.parquet", id="id")
    file = pa.ipc.open_file(pa.memory_map(str(folder / "rows.arrow")))
    table = file.read_all()
    held: Any
    match kind:
        case "Table":
            held = table
        case "RecordBatchReader":
            held = table.to_reader()
        case "polars":
            held = import_module("polars").scan_parquet(folder / "rows.parquet")
        case "pandas":
            held = import_module("pandas").read_parquet(folder / "rows.parquet")
        case "duckdb":
            held = import_module("duckdb").sql(f"from '{folder / 'rows.parquet'}'")
        case _:
            held = import_module("datasets").Dataset(table)
    return ArrowSource(held, id="id")


def sink(kind: str, folder: Path) -> ports.Sink:
    """Return where outputs go."""
    if kind == "jsonl":
        return JsonlSink(folder / "out.jsonl")
    return ParquetSink(folder / "out.parquet", schema=None if kind == "types found" else SCHEMA)


def read(kind: str, folder: Path, _: int) -> Iterator[int]:
    """Read all rows; yield how many were read, now and then."""
    with source(kind, folder).rows() as rows:
        for number, row in enumerate(rows, 1):
            assert row.id is not None
            if number % STEP == 0:
                yield number


def write(kind: str, folder: Path, count: int) -> Iterator[int]:
    """Deliver answers in pages, as a run does."""
    with sink(kind, folder).open() as delivery:
        for start in range(0, count, PAGE):
            delivery.complete([{"id": number, "output": output(number)} for number in range(start, start + PAGE)])
            if start % STEP == 0:
                yield start
        delivery.seal({"job": "bench"})
        yield count


def output(number: int) -> Mapping[str, object]:
    """Return an answer."""
    return {"label": f"label {number % 7}", "score": number / 3, "tags": ["a", f"b{number}"]}


def measured(what: str, kind: str, folder: Path, count: int) -> dict[str, float]:
    """Return the seconds, and the most that was allocated, in bytes."""
    work = (read if what == "read" else write)(kind, folder, count)
    begun = time.perf_counter()
    peak = max((allocated() for _ in work), default=allocated())
    return {"seconds": time.perf_counter() - begun, "peak": float(peak)}


def allocated() -> int:
    """Return the process's anonymous memory in bytes."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def in_a_process(what: str, kind: str, folder: Path, count: int) -> dict[str, float]:
    """Measure in a new process."""
    command = [sys.executable, "-m", "bench.arrow", "--child", what, kind, str(folder), str(count)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    measures: dict[str, float] = json.loads(done.stdout)
    return measures


def main(count: int) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name:
        folder, small = Path(name, "all"), Path(name, "quarter")
        for where, rows in ((folder, count), (small, count // 4)):
            where.mkdir()
            generate(where, rows)
        print(f"{count:,} rows              seconds   rows/s  ratio   MB at a quarter of the rows, and at all")
        for what, kinds in (("read", SOURCES), ("write", SINKS)):
            first = 0.0
            for kind in kinds:
                part, whole = in_a_process(what, kind, small, count // 4), in_a_process(what, kind, folder, count)
                first = first or whole["seconds"]
                print(
                    f"{what + ' ' + kind:24} {whole['seconds']:8.1f} {count / whole['seconds']:8,.0f} "
                    f"{whole['seconds'] / first:6.2f}   {part['peak'] / 1e6:6.0f} {whole['peak'] / 1e6:6.0f}"
                )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(measured(sys.argv[2], sys.argv[3], Path(sys.argv[4]), int(sys.argv[5]))))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else ROWS)
