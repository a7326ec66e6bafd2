"""docs/data_types.md: what becomes of every column type of every library, from the source to each sink and back.

The tables of the page are generated: `python -m tests.doors.test_data_types` prints them.
"""

from __future__ import annotations

import base64
import math
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import datasets
import duckdb
import orjson
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.domain.errors import UsageError
from orchestrator.domain.request import Renderer
from orchestrator.endpoints import HttpEndpoint
from orchestrator.engine.run.drafts import DraftMaker
from orchestrator.job import Job
from orchestrator.sinks import sink_for
from orchestrator.sources import CsvSource, ParquetSource
from orchestrator.testing.sinks import deliver
from orchestrator.testing.sources import read
from tests.doors.column_types import (
    BERLIN,
    DATASETS,
    DUCKDB,
    DUCKDB_FILES,
    PANDAS,
    PANDAS_FILES,
    POLARS,
    POLARS_FILES,
    PYARROW,
    PYARROW_FILES,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Write = Callable[[Path], object]

FILES = {"JSON Lines": "out.jsonl", "CSV": "out.csv", "Parquet": "out.parquet"}
PAGE = Path(__file__).parents[2] / "docs" / "data_types.md"
REFUSED = "refused: "
HEADER = "| type | in its Parquet file | the row has | in a text | in CSV | in our Parquet |\n|---|---|---|---|---|---|"


SPARK = orjson.loads(Path(__file__).with_name("spark_types.json").read_bytes())


def pandas_file(kind: str) -> Write:
    make = PANDAS_FILES[kind] if kind in PANDAS_FILES else PANDAS[kind][0]
    return lambda path: pd.DataFrame({"x": make()}).to_parquet(path)


def polars_file(kind: str) -> Write:
    make = POLARS_FILES[kind] if kind in POLARS_FILES else POLARS[kind][0]
    return lambda path: pl.DataFrame({"x": make()}).write_parquet(path)


def pyarrow_file(kind: str) -> Write:
    column = PYARROW_FILES[kind] if kind in PYARROW_FILES else PYARROW[kind][0]
    return lambda path: pq.write_table(pa.table({"x": column}), path)


def duckdb_file(kind: str) -> Write:
    def write(path: Path) -> None:
        with duckdb.connect() as connection:
            connection.execute(f"set TimeZone = '{BERLIN}'")
            connection.sql(f"select {kind} as x").write_parquet(str(path))

    return write


def datasets_file(kind: str) -> Write:
    feature, given, _ = DATASETS[kind]
    features = datasets.Features({"x": feature})
    return lambda path: datasets.Dataset.from_dict({"x": given}, features).to_parquet(path)


class UnwrittenBySpark(ValueError):
    """Its text is Spark's name for the error."""


def spark_file(kind: str) -> Write:
    """Spark is not installed: its files were kept by `python tests/doors/spark_types.py`."""

    def write(path: Path) -> None:
        if (kept := SPARK["files"][kind]).startswith(REFUSED):
            raise UnwrittenBySpark(kept.partition("[")[2].partition("]")[0])
        path.write_bytes(base64.b64decode(kept))

    return write


LIBRARIES: Mapping[str, tuple[Iterable[str], Callable[[str], Write]]] = {
    "pandas": ((*PANDAS, *PANDAS_FILES), pandas_file),
    "polars": ((*POLARS, *POLARS_FILES), polars_file),
    "pyarrow": ((*PYARROW, *PYARROW_FILES), pyarrow_file),
    "DuckDB": ((*DUCKDB, *DUCKDB_FILES), duckdb_file),
    "datasets": (DATASETS, datasets_file),
    "Spark": (SPARK["files"], spark_file),
}


def in_cell(value: object) -> str:
    """Return a text as code in a cell of a table; an empty one leaves the cell empty."""
    return f"`{value}`".replace("|", "\\|") if value else ""


def of_parquet(tool: str, path: Path) -> list[object]:
    match tool:
        case "pandas":
            return list(pd.read_parquet(path, dtype_backend="pyarrow")["x"].astype(object))
        case "polars":
            found: list[object] = pl.read_parquet(path)["x"].to_list()
            return found
        case "DuckDB":
            with duckdb.connect() as connection:
                return [row[0] for row in connection.execute(f"select x from '{path}'").fetchall()]
        case "datasets":
            cache = str(path.parent / "cache")
            return list(datasets.Dataset.from_parquet(str(path), cache_dir=cache)["x"])
        case _:
            return list(pq.read_table(path)["x"].to_pylist())


def of_json_lines(tool: str, path: Path) -> list[object]:
    match tool:
        case "pandas":
            return list(pd.read_json(path, lines=True, dtype=False)["x"].astype(object))
        case "polars":
            return pl.read_ndjson(path, infer_schema_length=None)["x"].to_list()
        case "DuckDB":
            with duckdb.connect() as connection:
                return [row[0] for row in connection.execute(f"select x from '{path}'").fetchall()]
        case _:
            return list(datasets.Dataset.from_json(str(path), cache_dir=str(path.parent / "cache"))["x"])


READERS = {
    "Parquet": (of_parquet, ("pyarrow", "pandas", "polars", "DuckDB", "datasets")),
    "JSON Lines": (of_json_lines, ("pandas", "polars", "DuckDB", "datasets")),
}


def plain(value: object) -> object:
    """Return what a tool has read as JSON. NA and NaN, which pandas has for null, are null."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def row_of(kind: str, write: Write, folder: Path) -> tuple[str, dict[tuple[str, str], str]]:
    """Return a type's line of the page, and what tools read back otherwise, by tool and format."""
    try:
        write(folder / "in.parquet")
    except Exception as error:  # noqa: BLE001 - each library has its own
        name = str(error) if isinstance(error, UnwrittenBySpark) else type(error).__name__
        return f"| {in_cell(kind)} | its library does not write it: `{name}` | | | | |", {}
    try:
        rows = read(ParquetSource(folder / "in.parquet"))
    except UsageError as error:
        return f"| {in_cell(kind)} | refused: {str(error).partition('in.parquet ')[2]} | | | | |", {}
    job = Job("types", ParquetSource(folder / "in.parquet"), HttpEndpoint("http://localhost"), keep=["x"])
    make = DraftMaker(job, {})
    kept = [orjson.loads(make(row).kept or "{}")["x"] for row in rows]
    records = [{"id": str(number), "x": value, "output": 1} for number, value in enumerate(kept)]
    for name in FILES.values():
        deliver(sink_for(folder / name, ["x"]), records)
    place = max(range(len(rows)), key=lambda number: rows[number].columns["x"] is not None)
    value = rows[place].columns["x"]
    text = "" if value is None else str(Renderer("{x}!")({"x": value}))[:-1]
    cell = read(CsvSource(folder / FILES["CSV"]))[place].columns["x"]
    given, written = (pq.read_schema(folder / name).field("x").type for name in ("in.parquet", FILES["Parquet"]))
    cells = [kind, given, orjson.dumps(value).decode(), text, cell, written]
    odd: dict[tuple[str, str], str] = {}
    for form, (back, tools) in READERS.items():
        for tool in tools:
            try:
                found = [plain(one) for one in back(tool, folder / FILES[form])]
            except Exception as error:  # noqa: BLE001 - each tool has its own
                odd[tool, form] = f"{REFUSED}{type(error).__name__}"
            else:
                if found != kept:
                    odd[tool, form] = orjson.dumps(found[place]).decode()
    return "| " + " | ".join(map(in_cell, cells)) + " |", odd


def section(library: str, folder: Path) -> str:
    kinds, writer = LIBRARIES[library]
    release = SPARK["version"] if library == "Spark" else version(library.lower())
    lines = [f"## {library} {release}", "", HEADER]
    exceptions: list[str] = []
    for number, kind in enumerate(kinds):
        place = folder / f"{library}-{number}"
        place.mkdir()
        line, odd = row_of(kind, writer(kind), place)
        lines.append(line)
        exceptions += [
            f"| {in_cell(kind)} | {tool} | {form} | {in_cell(value)} |" for (tool, form), value in odd.items()
        ]
    if exceptions:
        lines += ["", "Read back otherwise:", "", "| type | by | from our | as |", "|---|---|---|---|", *exceptions]
    return "\n".join(lines) + "\n"


@pytest.fixture(autouse=True)
def quiet() -> None:
    datasets.disable_progress_bars()


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of how pandas recognizes dates
def test_the_page_says_what_becomes_of_every_type(library: str, tmp_path: Path) -> None:
    assert section(library, tmp_path) in PAGE.read_text(encoding="utf-8")


if __name__ == "__main__":
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as scratch:
        sys.stdout.write("\n".join(section(library, Path(scratch)) for library in LIBRARIES))
