#!/usr/bin/env bash
# pysqlite3's wheel: temporary tables stay in memory, whatever PRAGMA temp_store says
#
# Guess, written down before: it spills to a file as the standard library's SQLite does, or at least with temp_store=FILE.
# Seen: the wheel is built with SQLITE_TEMP_STORE=3, which SQLite's documentation calls "always": the PRAGMA is taken without an error and
# does nothing. 200 MB in a temporary table are 200 MB of memory. With the standard library of Debian 12 (built with 1) they are not.
# So a "set that spills to disk", of ids seen for instance, is none.
# Versions: pysqlite3 0.6.1 (SQLite 3.53.4), CPython 3.11 on Debian 12 (SQLite 3.40.1). First seen 2026-11-29.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pysqlite3==0.6.1
cat > try.py <<'PY'
import importlib
import resource
import sys

sqlite = importlib.import_module(sys.argv[1])
connection = sqlite.connect(":memory:")
connection.execute("PRAGMA temp_store = FILE")
(option,) = [one for (one,) in connection.execute("PRAGMA compile_options") if one.startswith("TEMP_STORE")]
connection.execute("CREATE TEMP TABLE seen (text)")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
connection.executemany("INSERT INTO seen VALUES (?)", (("x" * 10_000,) for _ in range(20_000)))
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(sys.argv[1], option, "grows by more than 150 MB:", grown > 150)
PY
{ venv/bin/python try.py sqlite3; venv/bin/python try.py pysqlite3; } > seen
diff - seen <<'SEEN'
sqlite3 TEMP_STORE=1 grows by more than 150 MB: False
pysqlite3 TEMP_STORE=3 grows by more than 150 MB: True
SEEN
echo "as described"
