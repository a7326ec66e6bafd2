#!/usr/bin/env bash
# polars: a column of Int128 makes the whole Parquet file unreadable for pyarrow, its other columns too; DuckDB reads it as bytes
#
# Guess, written down only afterwards: polars writes Int128 as decimal(38,0), which all readers know, or refuses what does not fit.
# Seen: it writes 16 bytes of fixed length without a logical type, and says what they are only in the Arrow schema that it embeds.
# pyarrow trusts that schema and refuses the file, whichever columns are asked for; DuckDB ignores it and gives the bytes without
# a warning. Only polars reads the number. A cast on writing, to Decimal(38, 0) or to text, is read by all.
# Versions: polars 2.1.0, pyarrow 26.0.1, duckdb 2.0.1, CPython 3.11. First seen 2026-11-30.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check polars==2.1.0 pyarrow==26.0.1 duckdb==2.0.1
cat > try.py <<'PY'
import duckdb
import polars
import pyarrow.parquet as parquet

table = polars.DataFrame({"text": ["a"], "x": polars.Series([2**100], dtype=polars.Int128)})
for what, written in (("Int128", table), ("Decimal", table.cast({"x": polars.Decimal(38, 0)}))):
    written.write_parquet("x.parquet")
    try:
        seen = parquet.read_table("x.parquet", columns=["text"]).to_pylist()
    except NotImplementedError as error:
        seen = error
    print(what, "pyarrow:", seen)
    print(what, "DuckDB:", duckdb.sql("select typeof(x), x::VARCHAR from 'x.parquet'").fetchall())
    print(what, "polars:", polars.read_parquet("x.parquet")["x"].to_list() == [2**100])
PY
venv/bin/python try.py > seen
diff - seen <<'SEEN'
Int128 pyarrow: Integers with more than 64 bits not implemented
Int128 DuckDB: [('BLOB', '\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x10\\x00\\x00\\x00')]
Int128 polars: True
Decimal pyarrow: [{'text': 'a'}]
Decimal DuckDB: [('DECIMAL(38,0)', '1267650600228229401496703205376')]
Decimal polars: True
SEEN
echo "as described"
