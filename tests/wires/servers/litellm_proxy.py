"""LiteLLM's proxy as a program: a model of a server, the same with a limit, and two whose servers are gone.

One of these has two servers, which rest for some seconds after they have failed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--port", required=True)
parser.add_argument("--upstream", required=True)
given = parser.parse_args()


def model(name: str, base: str, **more: object) -> object:
    return {"model_name": name, "litellm_params": {"model": "openai/smollm2", "api_base": base, "api_key": "-", **more}}


base = f"{given.upstream}/v1"
gone = [model(name, f"http://127.0.0.1:{port}/v1") for name, port in (("gone", 9), ("cooling", 9), ("cooling", 11))]
models = [model("smollm2", base), model("limited", base, rpm=1), *gone]
router = {"num_retries": 0, "allowed_fails": 0, "cooldown_time": 5}
settings = {"model_list": models, "litellm_settings": {"num_retries": 0}, "router_settings": router}
path = Path(tempfile.gettempdir()) / "servers/litellm.yaml"
path.write_text(json.dumps(settings))  # JSON is YAML
program = Path(sys.executable).with_name("litellm")
os.execl(program, program, "--config", path, "--host", "127.0.0.1", "--port", given.port)
