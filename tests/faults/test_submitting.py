"""One key makes one run, even with concurrent submissions and killed processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.commands import Workplace

KEYS = 25
SAME, OTHER = "the same", "another one"


def begun(workplace: Workplace, spec: str, keys: int, **environment: str) -> subprocess.Popen[str]:
    """Start a process that is about to submit."""
    program = [sys.executable, "-P", "-m", "tests.faults.submitting", str(workplace.ledger), spec, str(keys)]
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        program,
        env=workplace.environment() | {"PYTHONPATH": root} | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_concurrent_submissions_with_one_key_make_one_run_and_the_others_get_it_or_a_refusal(
    workplace: Workplace,
) -> None:
    with ExitStack() as stack:
        specs = (SAME, SAME, SAME, OTHER)
        processes = [stack.enter_context(begun(workplace, spec, KEYS)) for spec in specs]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [process.communicate()[0].splitlines() for process in processes]
    runs = dict(workplace.query("SELECT key, id || ' ' || (spec ->> 'spec') FROM run"))
    assert workplace.count("run") == len(runs) == KEYS
    for number in range(KEYS):
        run_id, winner = runs[f"key {number}"].split(" ", 1)
        answers = [lines[number] for lines in said]
        assert sum(answer == f"{run_id} new" for answer in answers) == 1
        for spec, answer in zip(specs, answers, strict=True):
            refused = f"0 key 'key {number}' belongs to run {run_id}"
            assert answer in {f"{run_id} new", f"{run_id} known"} if spec == winner else answer.startswith(refused)


@pytest.mark.parametrize(("point", "again"), [("before submit", "1 new"), ("after submit", "1 known")])
def test_a_submission_killed_half_way_and_repeated_makes_one_run(
    workplace: Workplace, tmp_path: Path, point: str, again: str
) -> None:
    (tmp_path / "points").mkdir()
    with begun(workplace, SAME, 1, ORCHESTRATOR_FAILPOINTS=str(tmp_path / "points")) as killed:
        (tmp_path / "points" / point).touch()
        killed.communicate("go\n")
        assert killed.returncode == -signal.SIGKILL
    with begun(workplace, SAME, 1) as process:
        assert process.communicate("go\n")[0] == f"{again}\n"
    assert workplace.count("run") == 1
