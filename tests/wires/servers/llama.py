"""llama.cpp's server, which the package xllamacpp has as a library, as a program. It ends with SIGTERM."""

from __future__ import annotations

import argparse
import signal
import threading

import xllamacpp

THINKING = """\
{% for m in messages -%}
<|im_start|>{{ m.role }}
{% if m.role == 'assistant' and m.reasoning_content -%}
<think>
{{ m.reasoning_content }}
</think>

{% endif -%}
{{ m.content }}<|im_end|>
{% endfor -%}
{% if add_generation_prompt -%}
<|im_start|>assistant
<think>
{% endif %}"""

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--model", required=True)
parser.add_argument("--embeddings", action="store_true")
parser.add_argument("--pooling", action="store_true")
parser.add_argument("--reasoning", action="store_true")
given = parser.parse_args()

params = xllamacpp.CommonParams()
params.model.path = given.model
params.model_alias = {"smollm2"}
params.hostnames, params.port = ["127.0.0.1"], given.port
params.endpoint_metrics = params.endpoint_slots = params.endpoint_props = True
params.n_parallel, params.n_ctx = 2, 1024
params.use_jinja = True
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.embedding = given.embeddings
if given.pooling:
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
if given.reasoning:  # a template of a model that thinks: the answer begins inside its thoughts
    params.chat_template = THINKING
ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
server = xllamacpp.Server(params)
ended.wait()
del server
