#!/usr/bin/env bash
# openai: a 429 whose Retry-After is over two minutes is not retried at all, whatever max_retries says
#
# Guess, written down before: a long Retry-After is capped, or ignored in favour of the client's own backoff of at most 8 s.
# Seen: with max_retries=5, `Retry-After: 1` is waited for, and `Retry-After: 121` raises RateLimitError at once, after one request:
# the more patience a server asks for, the sooner the client gives up. Servers with a quota for a minute or an hour say such numbers.
# Versions: openai 3.57.0, CPython 3.11. First seen 2026-11-29.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check openai==3.57.0
cat > try.py <<'PY'
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import openai

ANSWER = {
    "id": "1", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "an answer"}}],
}


class Busy(BaseHTTPRequestHandler):
    requests = 0

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        Busy.requests += 1
        body = json.dumps(ANSWER if Busy.requests > 1 else {"error": {"message": "busy"}}).encode()
        self.send_response(200 if Busy.requests > 1 else 429)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Retry-After", self.path.split("/")[1])
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Busy)
Thread(target=server.serve_forever, daemon=True).start()
for seconds in (1, 121):
    Busy.requests = 0
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.server_port}/{seconds}", api_key="none", max_retries=5)
    try:
        answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hello"}])
        print("Retry-After:", seconds, "->", answer.choices[0].message.content, "|", Busy.requests, "requests")
    except openai.RateLimitError:
        print("Retry-After:", seconds, "-> RateLimitError |", Busy.requests, "requests")
PY
venv/bin/python try.py > seen
diff - seen <<'SEEN'
Retry-After: 1 -> an answer | 2 requests
Retry-After: 121 -> RateLimitError | 1 requests
SEEN
echo "as described"
