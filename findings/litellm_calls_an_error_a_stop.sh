#!/usr/bin/env bash
# LiteLLM: an answer that a provider broke off with an error arrives as a complete one, finish_reason "stop"
#
# Guess, written down before: a finish_reason that OpenAI does not know is handed on as it is, as the openai package does.
# Seen: "error", with or without an `error` object in the choice, becomes "stop" without a word, and "abort" becomes "stop" with a
# line in the log. Nothing of the object returned says that half of the answer is missing. Whoever asks through LiteLLM cannot
# tell such an answer from a whole one; the openai package shows the reason.
# Versions: litellm 1.110.2, openai 3.57.0, CPython 3.11. First seen 2026-11-29.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check litellm==1.110.2 openai==3.57.0
cat > try.py <<'PY'
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import litellm
import openai

litellm.suppress_debug_info = True
MESSAGES = [{"role": "user", "content": "hello"}]


class Broken(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        reason, _, what = self.path.split("/")[1].partition("-")
        choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": "half an ans"}}
        if what:
            choice["error"] = {"code": 502, "message": "the upstream provider failed"}
        answer = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Broken)
Thread(target=server.serve_forever, daemon=True).start()
for sent in ("error", "error-object", "abort"):
    url = f"http://127.0.0.1:{server.server_port}/{sent}"
    mine = openai.OpenAI(base_url=url, api_key="none").chat.completions.create(model="m", messages=MESSAGES).choices[0]
    theirs = litellm.completion(model="openai/m", api_base=url, api_key="none", messages=MESSAGES).choices[0]
    said = sorted(key for key in theirs.model_dump() if "error" in key)
    print(sent, "| openai:", mine.finish_reason, "| litellm:", theirs.finish_reason, theirs.message.content, said)
PY
LITELLM_LOCAL_MODEL_COST_MAP=True venv/bin/python try.py > seen 2> log
diff - seen <<'SEEN'
error | openai: error | litellm: stop half an ans []
error-object | openai: error | litellm: stop half an ans []
abort | openai: abort | litellm: stop half an ans []
SEEN
echo "as described"
