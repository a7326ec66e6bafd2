#!/usr/bin/env bash
# Five readers of JSON Lines, four answers to a whole number of 20 or 23 digits
#
# Guess, written down before: where a whole number does not fit, each of them refuses it, or makes it a float.
# Seen: `datasets` rounds both without a word, although unsigned 64 bits would hold the first. DuckDB reads the first exactly and
# rounds the second, although its HUGEINT would hold that, too; so does orjson. polars is exact for both. pandas is exact for the
# first and raises for the second. Hashes and trace ids that were written as numbers have such sizes: after rounding, rows join
# with nothing, or with another row.
# Versions: datasets 5.2.0, pandas 3.1.1, pyarrow 26.0.1, polars 2.1.0, duckdb 2.0.1, orjson 3.13.0, CPython 3.11. First seen 2026-11-29.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check datasets==5.2.0 pandas==3.1.1 pyarrow==26.0.1 polars==2.1.0 duckdb==2.0.1 orjson==3.13.0
cat > try.py <<'PY'
from pathlib import Path

import duckdb
import orjson
import pandas
import polars
from datasets import disable_progress_bars, load_dataset

disable_progress_bars()
readers = {
    "datasets": lambda name: load_dataset("json", data_files=name, split="train", cache_dir="cache-" + name)[0]["id"],
    "duckdb": lambda name: duckdb.sql(f"SELECT id FROM read_json('{name}')").fetchall()[0][0],
    "polars": lambda name: polars.read_ndjson(name)["id"][0],
    "pandas": lambda name: pandas.read_json(name, lines=True)["id"].tolist()[0],
    "orjson": lambda name: orjson.loads(Path(name).read_bytes())["id"],
}
for number in (12345678901234567890, 12345678901234567890123):
    name = f"{number}.jsonl"
    Path(name).write_text('{"id":%d}\n' % number)
    for reader, read in readers.items():
        try:
            print(number, reader, read(name))
        except ValueError as error:
            print(number, reader, type(error).__name__)
PY
venv/bin/python try.py > seen
diff - seen <<'SEEN'
12345678901234567890 datasets 1.2345678901234567e+19
12345678901234567890 duckdb 12345678901234567890
12345678901234567890 polars 12345678901234567890
12345678901234567890 pandas 12345678901234567890
12345678901234567890 orjson 12345678901234567890
12345678901234567890123 datasets 1.2345678901234568e+22
12345678901234567890123 duckdb 1.2345678901234568e+22
12345678901234567890123 polars 12345678901234567890123
12345678901234567890123 pandas ValueError
12345678901234567890123 orjson 1.2345678901234568e+22
SEEN
echo "as described"
