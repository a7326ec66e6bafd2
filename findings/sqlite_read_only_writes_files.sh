#!/usr/bin/env bash
# SQLite: a connection with mode=ro still creates files: ATTACH makes an empty database, and in older versions VACUUM INTO a copy
#
# Expected, written down before: a connection opened with `file:...?mode=ro` refuses every statement that writes anything.
# Seen: it refuses writes to its own database. ATTACH still creates an empty database anywhere, and with SQLite 3.40.1 VACUUM INTO
# writes a copy. PRAGMA query_only refuses VACUUM INTO, but not ATTACH. An authorizer that allows only SELECT, READ, FUNCTION and
# RECURSIVE refuses all of them, before anything is executed. So a query that a user gives needs one, beside mode=ro.
# Versions: pysqlite3 0.6.1 (SQLite 3.53.4), whose output is below; CPython 3.11 with SQLite 3.40.1. First seen 2026-11-30.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pysqlite3==0.6.1
cat > try.py <<'PY'
import os

import pysqlite3 as sqlite3

READS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}


def only_reading(action, *_):
    return sqlite3.SQLITE_OK if action in READS else sqlite3.SQLITE_DENY


with sqlite3.connect("own.db") as own:
    own.execute("CREATE TABLE t (a)")
own.close()
for how in ("mode=ro", "query_only", "authorizer"):
    connection = sqlite3.connect("file:own.db?mode=ro", uri=True)
    if how == "query_only":
        connection.execute("PRAGMA query_only = ON")
    if how == "authorizer":
        connection.set_authorizer(only_reading)
    done = []
    for statement in ("INSERT INTO t VALUES (1)", "VACUUM INTO 'copy.db'", "ATTACH 'other.db' AS other"):
        try:
            connection.execute(statement)
            done.append(statement.split()[0])
        except sqlite3.DatabaseError:
            pass
    connection.close()
    files = [name for name in ("copy.db", "other.db") if os.path.exists(name)]
    print(f"{how}: executes {done}, leaves {files}")
    for name in files:
        os.remove(name)
PY
venv/bin/python try.py > seen
diff - seen <<'SEEN'
mode=ro: executes ['ATTACH'], leaves ['other.db']
query_only: executes ['ATTACH'], leaves ['other.db']
authorizer: executes [], leaves []
SEEN
echo "as described"
