#!/usr/bin/env bash
# `datasets`: Arrow batches of a stream have the types of their own values, so whether a stream can be read depends on the batch size
#
# Guess, written down only afterwards: with_format("arrow") on a Dataset that was turned into a stream yields batches of one schema, that of its features.
# Seen: that holds until `map`. After it, a stream forgets its features, and each batch has the types that its values suggest, also in columns that the
# function has not touched: where `note` is empty throughout it has the type null, and string in the next one. Rows of both kinds in one
# batch make `iter` raise, as a schema that differs. map on the Dataset, before it becomes a stream, keeps string in all of them.
# Versions: datasets 5.2.0, pyarrow 26.0.1, CPython 3.11. First seen 2026-11-30.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check datasets==5.2.0 pyarrow==26.0.1
cat > try.py <<'PY'
import pyarrow
from datasets import Dataset, disable_progress_bars

disable_progress_bars()
made = Dataset.from_dict({"id": [0, 1, 2, 3], "note": [None, None, "x", "y"]})
print("the dataset:", made.features["note"].dtype)


def twice(row):
    return {"twice": row["id"] * 2}


for name, stream in (
    ("a stream of it", made.to_iterable_dataset()),
    ("map, then a stream", made.map(twice).to_iterable_dataset()),
    ("a stream, then map", made.to_iterable_dataset().map(twice)),
):
    for size in (2, 4):
        types = []
        try:
            for batch in stream.with_format("arrow").iter(batch_size=size):
                types.append(str(batch.schema.field("note").type))
        except pyarrow.ArrowInvalid as error:
            types.append(type(error).__name__)
        print(f"{name}, {size} at a time:", types)
PY
venv/bin/python try.py > seen
diff - seen <<'SEEN'
the dataset: string
a stream of it, 2 at a time: ['string', 'string']
a stream of it, 4 at a time: ['string']
map, then a stream, 2 at a time: ['string', 'string']
map, then a stream, 4 at a time: ['string']
a stream, then map, 2 at a time: ['null', 'string']
a stream, then map, 4 at a time: ['ArrowInvalid']
SEEN
echo "as described"
