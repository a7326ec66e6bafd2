#!/usr/bin/env bash
# orjson reads JSON that it cannot write: 1,024 levels in, 254 out
#
# Guess, written down before: one limit for both, and the standard library's recursion limit is lower than either.
# Seen: loads takes 1,024 levels, dumps raises a TypeError ("Recursion limit reached") from 255 on. So an answer that has been read
# cannot be stored, if both go through orjson. The standard library writes and reads all of them.
# Versions: orjson 3.13.0, CPython 3.11. First seen 2026-11-29.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check orjson==3.13.0
cat > try.py <<'PY'
import json

import orjson


def tries(do):
    try:
        do()
    except ValueError:
        return "ValueError"
    except TypeError as error:
        return f"TypeError: {error}"
    return "fine"


def nested(levels):
    return "[" * levels + "]" * levels


for levels in (254, 255, 1024, 1025):
    print(levels, "loads:", tries(lambda: orjson.loads(nested(levels))))
    value = json.loads(nested(levels)) if levels < 900 else None
    if value is not None:
        print(levels, "dumps:", tries(lambda: orjson.dumps(value)), "| json.dumps:", tries(lambda: json.dumps(value)))
PY
venv/bin/python try.py > seen
diff - seen <<'SEEN'
254 loads: fine
254 dumps: fine | json.dumps: fine
255 loads: fine
255 dumps: TypeError: Recursion limit reached | json.dumps: fine
1024 loads: fine
1025 loads: ValueError
SEEN
echo "as described"
