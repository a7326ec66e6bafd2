#!/usr/bin/env bash
# uvicorn: --limit-concurrency N serves N - 1 connections, idle ones included; with 1, it answers every request 503
#
# Guess, written down before: N requests are served at once, and 503 is for those beyond, as the documentation has it.
# Seen: a connection counts while it is kept open, with no request on it, and the one that asks counts itself. Requests one after the
# other, from clients that keep their connections (a pool, a load balancer, a health check), are refused by a server that does nothing.
# A server behind such a limit seems overloaded and unhealthy to clients with pools: set the limit well above the number of their connections.
# Versions: uvicorn 0.54.0, h11 0.16.0, CPython 3.11. First seen 2026-11-30.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check uvicorn==0.54.0 h11==0.16.0
cat > app.py <<'PY'
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
PY
cat > try.py <<'PY'
import http.client
import subprocess
import sys
import threading

for limit in (1, 2, 3):
    command = [sys.executable, "-m", "uvicorn", "app:app", "--port", "0", "--no-access-log"]
    command += ["--limit-concurrency", str(limit)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        port = next(int(line.split("127.0.0.1:")[1].split()[0]) for line in server.stderr if "running on" in line)
        threading.Thread(target=server.stderr.read, daemon=True).start()
        connections = [http.client.HTTPConnection("127.0.0.1", port) for _ in range(4)]
        statuses = []
        for connection in connections:  # one request at a time; each connection stays open
            connection.request("GET", "/")
            with connection.getresponse() as answer:
                answer.read()
                statuses.append(answer.status)
        print(limit, statuses)
        for connection in connections:
            connection.close()
        server.terminate()
PY
venv/bin/python try.py > seen
diff - seen <<'SEEN'
1 [503, 503, 503, 503]
2 [200, 503, 503, 503]
3 [200, 200, 503, 503]
SEEN
echo "as described"
