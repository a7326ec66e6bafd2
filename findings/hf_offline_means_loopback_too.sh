#!/usr/bin/env bash
# huggingface_hub: HF_HUB_OFFLINE=1 refuses a server on 127.0.0.1, too
#
# Guess, written down before: offline mode means the Hub's hosts; an endpoint= of this machine is still asked.
# Seen: every request that goes through huggingface_hub's client raises OfflineModeIsEnabled before anything is sent, whatever the
# host: a mirror on this machine, a fake service in a test, an endpoint's own URL through InferenceClient. A process that sets the
# variable so that models load from the cache alone can no longer speak to its own server.
# Versions: huggingface_hub 2.4.0, CPython 3.11. First seen 2026-11-29.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check huggingface_hub==2.4.0
cat > try.py <<'PY'
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from huggingface_hub import HfApi, InferenceClient


class Local(BaseHTTPRequestHandler):
    requests = 0

    def do_GET(self):
        Local.requests += 1
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b'{"name": "me"}')

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        Local.requests += 1
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b'[[{"label": "good", "score": 0.5}]]')

    def log_message(self, *args):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Local)
Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
tries = {
    "whoami": lambda: HfApi(endpoint=url, token="none").whoami()["name"],
    "text_classification": lambda: InferenceClient(model=url, token="none").text_classification("text")[0].label,
}
for name, ask in tries.items():
    try:
        print(name, ask(), end=" ")
    except Exception as error:
        print(name, type(error).__name__, end=" ")
    print("|", Local.requests, "requests")
PY
{ HF_HUB_OFFLINE=0 venv/bin/python try.py; echo "offline:"; HF_HUB_OFFLINE=1 venv/bin/python try.py; } > seen
diff - seen <<'SEEN'
whoami me | 1 requests
text_classification good | 2 requests
offline:
whoami OfflineModeIsEnabled | 0 requests
text_classification OfflineModeIsEnabled | 0 requests
SEEN
echo "as described"
