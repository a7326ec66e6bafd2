#!/usr/bin/env bash
# pandas: which rows a filter keeps decides whether the same frame has one more column for others
#
# Guess, written down before: a filtered frame has its columns, in Arrow as elsewhere, and the rows' old numbers are always or never added.
# Seen: if the rows that are kept are evenly spaced (also one row, or none), the frame's index is a RangeIndex, which Arrow leaves out.
# Otherwise the index is a list of numbers, which becomes a column `__index_level_0__`. So the schema that __arrow_c_stream__ and
# Table.from_pandas give depends on the data: a night's file has a column that the next one lacks. DuckDB and polars, given the same
# frame by its name or to polars.DataFrame, never show the column.
# Versions: pandas 3.1.1, pyarrow 26.0.1, polars 2.1.0, duckdb 2.0.1, CPython 3.11. First seen 2026-11-30.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pandas==3.1.1 pyarrow==26.0.1 polars==2.1.0 duckdb==2.0.1
cat > try.py <<'PY'
import duckdb
import pandas
import polars
import pyarrow

frame = pandas.DataFrame({"a": range(6)})
for kept in ([1, 3, 5], [0, 1, 3], [2], []):
    part = frame[frame["a"].isin(kept)]
    stream = pyarrow.RecordBatchReader.from_stream(part)
    print(kept, type(part.index).__name__, stream.schema.names, pyarrow.Table.from_pandas(part).schema.names,
          duckdb.sql("SELECT * FROM part").columns, polars.DataFrame(part).columns)
PY
venv/bin/python try.py > seen
diff - seen <<'SEEN'
[1, 3, 5] RangeIndex ['a'] ['a'] ['a'] ['a']
[0, 1, 3] Index ['a', '__index_level_0__'] ['a', '__index_level_0__'] ['a'] ['a']
[2] RangeIndex ['a'] ['a'] ['a'] ['a']
[] RangeIndex ['a'] ['a'] ['a'] ['a']
SEEN
echo "as described"
