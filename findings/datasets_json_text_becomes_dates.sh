#!/usr/bin/env bash
# `datasets`: text ids that look like dates are moments once they are loaded from JSON, and numbers once they are written again
#
# Guess, written down before: a JSON string is a string column.
# Seen: load_dataset("json") makes a timestamp column of strings like "2024-01-01". One id of another form in the file makes
# all of them strings again. `to_json` writes the moments as milliseconds since 1970, so that a file that was only loaded and
# written has other ids, of another type. polars reads the same file as text; DuckDB makes a DATE of it, and writes it back as it was.
# Versions: datasets 5.2.0, pandas 3.1.1, pyarrow 26.0.1, polars 2.1.0, duckdb 2.0.1, CPython 3.11. First seen 2026-11-29.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check datasets==5.2.0 pandas==3.1.1 pyarrow==26.0.1 polars==2.1.0 duckdb==2.0.1
cat > try.py <<'PY'
from pathlib import Path

import duckdb
import polars
from datasets import disable_progress_bars, load_dataset

disable_progress_bars()


def load(name, *ids):
    Path(name).write_text("".join(f'{{"id":"{one}"}}\n' for one in ids))
    return load_dataset("json", data_files=name, split="train", cache_dir="cache-" + name)


dated = load("dated.jsonl", "2024-01-01", "2024-01-02")
print("datasets:", dated.features["id"].dtype)
dated.to_json("again.jsonl")
print("written again:", Path("again.jsonl").read_text().split())
print("with another form among them:", load("mixed.jsonl", "2024-01-01", "b").features["id"].dtype)
print("polars:", polars.read_ndjson("dated.jsonl")["id"].to_list())
duckdb.sql("COPY (FROM read_json('dated.jsonl')) TO 'duckdb.json'")
print("DuckDB, written again:", Path("duckdb.json").read_text().split())
PY
venv/bin/python try.py > seen
diff - seen <<'SEEN'
datasets: timestamp[s]
written again: ['{"id":1704067200000}', '{"id":1704153600000}']
with another form among them: string
polars: ['2024-01-01', '2024-01-02']
DuckDB, written again: ['{"id":"2024-01-01"}', '{"id":"2024-01-02"}']
SEEN
echo "as described"
