#!/usr/bin/env bash
# transformers serve: a question about an image to a model of texts is answered without the image, status 200
#
# Guess, written down before: 400, as vLLM answers ("is not a multimodal model"), or 500, as llama.cpp does.
# Seen: the parts of a message that the model cannot take are left out without a word. The answer, and the number of prompt tokens, are
# those of the text alone. A job that names a wrong model gets invented answers for every row. The same holds for a `type` that is no
# type of a part. /v1/responses has the status "completed" for an answer that max_output_tokens cut off.
# Versions: transformers 5.23.0, torch 2.13.0, CPython 3.11. First seen 2026-11-30.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 'transformers[serving]==5.23.0' accelerate==1.15.0
cat > try.py <<'PY'
import json
import os
import subprocess
import sys
import time
import urllib.request

from tokenizers import ByteLevelBPETokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

learned = ByteLevelBPETokenizer()
learned.train_from_iterator([open(__file__).read()], vocab_size=300, show_progress=False, special_tokens=["<pad>", "<s>", "</s>"])
tokenizer = PreTrainedTokenizerFast(tokenizer_object=learned._tokenizer, pad_token="<pad>", eos_token="</s>")
tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **small, eos_token_id=None)).save_pretrained("tiny")
tokenizer.save_pretrained("tiny")
os.makedirs("home/hub")
serve = [os.path.join(os.path.dirname(sys.executable), "transformers"), "serve", "tiny"]
offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": os.path.abspath("home"), "OMP_NUM_THREADS": "1"}
serve += ["--host", "127.0.0.1", "--port", "18432", "--device", "cpu"]
server = subprocess.Popen(serve, env=os.environ | offline, stdout=subprocess.DEVNULL)


def ask(route, **body):
    head = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:18432/{route}", json.dumps(body).encode() if body else None, head)
    with urllib.request.urlopen(request) as answer:
        return answer.status, json.load(answer)


while server.poll() is None:
    try:
        ask("health")
        break
    except OSError:
        time.sleep(0.2)
text, pixel = {"type": "text", "text": "What is in the image?"}, "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="
for parts in ([text], [text, {"type": "image_url", "image_url": {"url": pixel}}], [text, {"type": "nonsense"}]):
    chat = {"model": "tiny", "messages": [{"role": "user", "content": parts}], "max_tokens": 2}
    status, answer = ask("v1/chat/completions", **chat)
    if len(parts) == 1:
        alone = answer["usage"]["prompt_tokens"]
    print(status, [part["type"] for part in parts], "as the text alone:", answer["usage"]["prompt_tokens"] == alone)
status, answer = ask("v1/responses", model="tiny", input="hello", max_output_tokens=2, stream=False)
print(status, answer["status"], answer.get("incomplete_details"), answer["usage"]["output_tokens"])
server.terminate()
server.wait()
PY
venv/bin/python try.py > seen 2> log || { tail -n 20 log; exit 1; }
diff - seen <<'SEEN'
200 ['text'] as the text alone: True
200 ['text', 'image_url'] as the text alone: True
200 ['text', 'nonsense'] as the text alone: True
200 completed None 2
SEEN
echo "as described"
