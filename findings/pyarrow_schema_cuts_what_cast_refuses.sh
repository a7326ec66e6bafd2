#!/usr/bin/env bash
# pyarrow: a declared schema cuts the fraction of Python's floats without a word, which a cast of the same values refuses
#
# Guess, written down before: rows that do not fit the schema raise, as `cast` does with "was truncated converting".
# Seen: Table.from_pylist(rows, schema=...) and pyarrow.array(values, type) store a score of 4.5 as 4 in an int64 column, also within
# lists and structs, and 1e300 as infinity in float32. They are strict about others: 3e9 as int32, 2**53 + 1 as a float, True and "4" as
# an integer raise. So a judge's scores, declared as integers since the first ones were, are rounded down in the file.
# Versions: pyarrow 26.0.1, CPython 3.11. First seen 2026-11-30.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pyarrow==26.0.1
cat > try.py <<'PY'
import pyarrow as pa

score = pa.field("score", pa.int64())
trials = {
    "from_pylist": lambda: pa.Table.from_pylist([{"score": 4}, {"score": 4.5}], schema=pa.schema([score]))["score"],
    "array": lambda: pa.array([4.5], pa.int64()),
    "in a list": lambda: pa.array([[4.5]], pa.list_(pa.int64())),
    "in a struct": lambda: pa.array([{"score": 4.5}], pa.struct([score])),
    "to float32": lambda: pa.array([1e300], pa.float32()),
    "cast": lambda: pa.array([4.5]).cast(pa.int64()),
    "3e9 as int32": lambda: pa.array([3e9], pa.int32()),
    "2**53 + 1 as float64": lambda: pa.array([2**53 + 1], pa.float64()),
    "True as int64": lambda: pa.array([True], pa.int64()),
}
for name, trial in trials.items():
    try:
        print(name, trial().to_pylist())
    except pa.ArrowException as error:
        print(name, type(error).__name__)
PY
venv/bin/python try.py > seen
diff - seen <<'SEEN'
from_pylist [4, 4]
array [4]
in a list [[4]]
in a struct [{'score': 4}]
to float32 [inf]
cast ArrowInvalid
3e9 as int32 ArrowInvalid
2**53 + 1 as float64 ArrowInvalid
True as int64 ArrowTypeError
SEEN
echo "as described"
