#!/usr/bin/env bash
# `datasets`: Dataset.to_json writes small numbers as 0.0 and cuts moments to milliseconds
#
# Guess, written down before: it writes the shortest digits that read back as the same number, as Python's json does.
# Seen: ten digits after the point, whatever the size of the number, so that a probability of 1e-12 becomes 0.0, in lists as well; the microseconds of a timestamp[us] are lost, and NaN and infinity are both null. It goes through
# pandas' to_json, whose defaults are ten digits and milliseconds. `to_json(..., double_precision=15, date_unit="us")` hands other
# values down: 1e-20 is then what it was. Parquet keeps all of it.
# Versions: datasets 5.2.0, pandas 3.1.1, pyarrow 26.0.1, CPython 3.11. First seen 2026-11-29.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check datasets==5.2.0 pandas==3.1.1 pyarrow==26.0.1
cat > try.py <<'PY'
from datetime import datetime
from pathlib import Path

from datasets import Dataset, disable_progress_bars

disable_progress_bars()
made = Dataset.from_dict({
    "number": [1e-12, 0.1234567890123456, float("nan"), float("inf")],
    "vector": [[1e-12, 0.5]] * 4,
    "moment": [datetime(2026, 1, 2, 3, 4, 5, 678901)] * 4,
})
made.to_json("made.jsonl")
print(Path("made.jsonl").read_text(), end="")
Dataset.from_dict({"number": [1e-12, 1e-20]}).to_json("finer.jsonl", double_precision=15)
print(Path("finer.jsonl").read_text(), end="")
PY
venv/bin/python try.py > seen
diff - seen <<'SEEN'
{"number":0.0,"vector":[0.0,0.5],"moment":1767323045678}
{"number":0.123456789,"vector":[0.0,0.5],"moment":1767323045678}
{"number":null,"vector":[0.0,0.5],"moment":1767323045678}
{"number":null,"vector":[0.0,0.5],"moment":1767323045678}
{"number":0.000000000001}
{"number":1e-20}
SEEN
echo "as described"
