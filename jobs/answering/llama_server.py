"""The server of llama.cpp with the part of the `llama-server` command line that we use: needs xllamacpp."""

from __future__ import annotations

import argparse
import threading

import xllamacpp

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--host", required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--alias", required=True)
parser.add_argument("--metrics", action="store_true")
parser.add_argument("--parallel", type=int, default=1)
parser.add_argument("--ctx-size", type=int, default=2048)
given = parser.parse_args()

params = xllamacpp.CommonParams()
params.model.path = given.model
params.model_alias = {given.alias}
params.hostnames, params.port = [given.host], given.port
params.endpoint_metrics, params.n_parallel, params.n_ctx = given.metrics, given.parallel, given.ctx_size
params.use_jinja = True
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
threading.Event().wait()
