#!/usr/bin/env bash
# `datasets`: a chat whose `content` is now a text, now a list is written to Parquet as JSON text; others read it with quotation marks
#
# Guess, written down before: a column that is not uniform is refused, or every content becomes a list.
# Seen: load_dataset("json") gives such a column the feature Json, to_parquet writes it as arrow.json (Parquet's logical type JSON), and
# only `datasets` decodes it when it reads it back. pandas, polars and DuckDB hand out the text, so that a plain prompt arrives as
# "plain" with its quotation marks, and a list of parts as one string. A prompt with quotation marks is a valid prompt: nothing fails.
# Versions: datasets 5.2.0, pandas 3.1.1, pyarrow 26.0.1, polars 2.1.0, duckdb 2.0.1, CPython 3.11. First seen 2026-11-29.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check datasets==5.2.0 pandas==3.1.1 pyarrow==26.0.1 polars==2.1.0 duckdb==2.0.1
cat > try.py <<'PY'
import json
from pathlib import Path

import duckdb
import pandas
import polars
import pyarrow.parquet as parquet
from datasets import disable_progress_bars, load_dataset

disable_progress_bars()
contents = ["plain", [{"type": "text", "text": "part"}]]
rows = [{"messages": [{"role": "user", "content": content}]} for content in contents]
Path("chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
load_dataset("json", data_files="chat.jsonl", split="train", cache_dir="one").to_parquet("chat.parquet")
print(parquet.read_schema("chat.parquet").field("messages").type)
again = load_dataset("parquet", data_files="chat.parquet", split="train", cache_dir="two")
readers = {
    "datasets": [row["messages"] for row in again],
    "pandas": pandas.read_parquet("chat.parquet")["messages"],
    "polars": polars.read_parquet("chat.parquet")["messages"].to_list(),
    "duckdb": [row[0] for row in duckdb.sql("SELECT messages FROM 'chat.parquet'").fetchall()],
}
for reader, chats in readers.items():
    print(reader, [chat[0]["content"] for chat in chats])
PY
venv/bin/python try.py > seen
diff - seen <<'SEEN'
list<element: struct<role: string, content: extension<arrow.json>>>
datasets ['plain', [{'type': 'text', 'text': 'part'}]]
pandas ['"plain"', '[{"type":"text","text":"part"}]']
polars ['"plain"', '[{"type":"text","text":"part"}]']
duckdb ['"plain"', '[{"type":"text","text":"part"}]']
SEEN
echo "as described"
