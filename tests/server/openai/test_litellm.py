"""LiteLLM's batch client against a real server process."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest

from tests.server.openai.conftest import jsonl, line

if TYPE_CHECKING:
    from tests.server.conftest import HttpServer

CLIENT = Path(__file__).with_name("litellm_client.py")
OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION"}


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.skipif(find_spec("litellm") is None, reason="litellm is not installed")
def test_litellms_batch_client_works(batch_server: HttpServer, tmp_path: Path) -> None:
    path = tmp_path / "night.jsonl"
    path.write_bytes(jsonl([line("a", "first"), line("b", "second")]))
    ended = subprocess.run(
        [sys.executable, CLIENT, batch_server.url, batch_server.token, path],
        env={**os.environ, **OFFLINE},
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr.decode()
    found = orjson.loads(ended.stdout.splitlines()[-1])
    assert [orjson.loads(one)["custom_id"] for one in found.pop("lines")] == ["a", "b"]
    assert "Cannot cancel a batch with status 'completed'" in found.pop("refused")
    assert found == {
        "status": "completed",
        "metadata": {"from": "litellm"},
        "counts": {"total": 2, "completed": 2, "failed": 0},
        "listed": True,
        "files": 2,
        "deleted": True,
    }
