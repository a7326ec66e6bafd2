#!/usr/bin/env bash
# DuckDB: the exact sum of a BIGINT column is a rounded double once COPY has written it to Parquet
#
# Guess, written down before: sum() of BIGINT is HUGEINT, so COPY writes a decimal(38,0), which holds nearly all of it.
# Seen: COPY writes HUGEINT as a plain double without a warning: 9007199254740993 comes back as 9007199254740992, from DuckDB
# itself as well. A cast says what is meant, `sum(x)::BIGINT` or `::DECIMAL(38,0)`, and is exact. COPY to JSON is exact without one.
# Versions: duckdb 2.0.1, pyarrow 26.0.1, CPython 3.11. First seen 2026-11-29.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check duckdb==2.0.1 pyarrow==26.0.1
cat > try.py <<'PY'
from pathlib import Path

import duckdb
import pyarrow.parquet as parquet

table = "(VALUES (9007199254740993::BIGINT)) t(x)"
for what in ("sum(x)", "sum(x)::BIGINT", "sum(x)::DECIMAL(38,0)"):
    query = f"SELECT {what} AS total FROM {table}"
    ((kind, here),) = duckdb.sql(f"SELECT typeof(total), total FROM ({query})").fetchall()
    duckdb.sql(f"COPY ({query}) TO 'total.parquet'")
    ((back,),) = duckdb.sql("SELECT total::VARCHAR FROM 'total.parquet'").fetchall()
    print(what, kind, here, "->", parquet.read_schema("total.parquet").field("total").type, back)
duckdb.sql(f"COPY (SELECT sum(x) AS total FROM {table}) TO 'total.json'")
print(Path("total.json").read_text(), end="")
PY
venv/bin/python try.py > seen
diff - seen <<'SEEN'
sum(x) HUGEINT 9007199254740993 -> double 9007199254740992.0
sum(x)::BIGINT BIGINT 9007199254740993 -> int64 9007199254740993
sum(x)::DECIMAL(38,0) DECIMAL(38,0) 9007199254740993 -> decimal128(38, 0) 9007199254740993
{"total":9007199254740993}
SEEN
echo "as described"
