#!/usr/bin/env bash
# pysqlite3's wheel: temporary tables stay in memory, whatever PRAGMA temp_store says
#
# Guess, written down before: they spill to a file, or do so at least with PRAGMA temp_store = FILE.
# Seen: the wheel is built with SQLITE_TEMP_STORE=3, which SQLite's documentation calls "always". The PRAGMA is taken without an error
# and reads back as 1 (FILE), but 200 MB in a temporary table are 200 MB of memory. So a set that is meant to spill to disk, of
# ids that were seen for instance, does not.
# Versions: pysqlite3 0.6.1 (SQLite 3.53.4), CPython 3.11. First seen 2026-11-29.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pysqlite3==0.6.1
cat > try.py <<'PY'
import resource

import pysqlite3

connection = pysqlite3.connect(":memory:")
connection.execute("PRAGMA temp_store = FILE")
(option,) = [one for (one,) in connection.execute("PRAGMA compile_options") if one.startswith("TEMP_STORE")]
((setting,),) = connection.execute("PRAGMA temp_store")
connection.execute("CREATE TEMP TABLE seen (text)")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
connection.executemany("INSERT INTO seen VALUES (?)", (("x" * 10_000,) for _ in range(20_000)))
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(option, "| temp_store:", setting, "| grows by more than 150 MB:", grown > 150)
PY
venv/bin/python try.py > seen
diff - seen <<'SEEN'
TEMP_STORE=3 | temp_store: 1 | grows by more than 150 MB: True
SEEN
echo "as described"
