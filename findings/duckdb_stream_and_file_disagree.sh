#!/usr/bin/env bash
# DuckDB: the same column has other values in an Arrow stream than in a Parquet file that DuckDB writes
#
# Guess, written down before: a table's stream and its file hold the same values, in types that may differ.
# Seen: a time with a zone loses its offset in the stream and keeps the clock's figures; in the file it is the moment in UTC: two hours apart,
# and neither says which of the two it is. A BIT is its internal bytes in the stream, text in the file. A BIGNUM is bytes and a text of digits;
# a UNION is a bare value, and a struct of all its members. Read by the same library, both without an error.
# Versions: duckdb 2.0.1, pyarrow 26.0.1, CPython 3.11. First seen 2026-11-30.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pyarrow==26.0.1 duckdb==2.0.1
cat > try.py <<'PY'
import duckdb
import pyarrow
import pyarrow.parquet as parquet

for value in ("TIMETZ '01:02:03+02'", "'0101'::BIT", "1::BIGNUM", "union_value(n := 2)::UNION(m INTEGER, n INTEGER)"):
    duckdb.sql(f"COPY (SELECT {value} AS x) TO 'x.parquet'")
    stream = pyarrow.RecordBatchReader.from_stream(duckdb.sql(f"SELECT {value} AS x")).read_all()
    print(value, stream["x"].to_pylist(), parquet.read_table("x.parquet")["x"].to_pylist())
PY
venv/bin/python try.py > seen
diff - seen <<'SEEN'
TIMETZ '01:02:03+02' [datetime.time(1, 2, 3)] [datetime.time(23, 2, 3)]
'0101'::BIT [b'\x04\xf5'] ['0101']
1::BIGNUM [b'\x80\x00\x01\x01'] ['1']
union_value(n := 2)::UNION(m INTEGER, n INTEGER) [2] [{'element1': 1, 'm': None, 'n': 2}]
SEEN
echo "as described"
