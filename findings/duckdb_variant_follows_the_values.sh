#!/usr/bin/env bash
# DuckDB: the Parquet schema of a VARIANT column follows its values, so two files of one query do not fit together; polars reads neither
#
# Guess, written down only afterwards: a VARIANT is two columns of bytes in every file, as Parquet describes it, which other readers hand out as they are.
# Seen: DuckDB takes the most frequent type out of the bytes, into a column `typed_value` of that type: int32 in one file, string in the next one.
# pyarrow reads each file alone, and fails for both together. polars refuses each of them, also for its other columns. DuckDB itself reads
# all of it. The same query, run each day, so makes files that others can read or not, depending on the day's values; x::JSON does not.
# Versions: duckdb 2.0.1, pyarrow 26.0.1, polars 2.1.0, CPython 3.11. First seen 2026-11-30.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check duckdb==2.0.1 pyarrow==26.0.1 polars==2.1.0
cat > try.py <<'PY'
import duckdb
import polars
import pyarrow.dataset as dataset
import pyarrow.parquet as parquet


def tried(read):
    try:
        return read()
    except Exception as error:
        return type(error).__name__


for kind in ("VARIANT", "JSON"):
    for name, value in (("monday", "1"), ("tuesday", "'\"x\"'::JSON")):
        duckdb.sql(f"COPY (SELECT 7 AS id, ({value})::{kind} AS x) TO '{name}.parquet'")
        print(kind, name, parquet.read_schema(f"{name}.parquet").field("x").type)
        print("polars, only id:", tried(lambda: polars.read_parquet(f"{name}.parquet", columns=["id"])["id"].to_list()))
    files = ["monday.parquet", "tuesday.parquet"]
    print("DuckDB, both:", duckdb.sql(f"SELECT x::VARCHAR FROM read_parquet({files})").fetchall())
    print("pyarrow, both:", tried(lambda: dataset.dataset(files).to_table()["x"].to_pylist()))
PY
venv/bin/python try.py > seen
diff - seen <<'SEEN'
VARIANT monday struct<metadata: binary not null, value: binary, typed_value: int32>
polars, only id: ComputeError
VARIANT tuesday struct<metadata: binary not null, value: binary, typed_value: string>
polars, only id: ComputeError
DuckDB, both: [('1',), ('x',)]
pyarrow, both: ArrowInvalid
JSON monday extension<arrow.json>
polars, only id: [7]
JSON tuesday extension<arrow.json>
polars, only id: [7]
DuckDB, both: [('1',), ('"x"',)]
pyarrow, both: ['1', '"x"']
SEEN
echo "as described"
