"""The wheel in an empty environment: it creates its ledger and runs from any folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.commands import rows
from tests.servers import answer_to
from tests.wheels import ROOT, build, install

if TYPE_CHECKING:
    from tests.commands import Workplace

pytestmark = pytest.mark.unmeasured

REMOTE_NEEDS_NONE = ("torch", "transformers", "huggingface_hub", "IPython")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel"))


def test_the_installed_wheel_is_imported_and_started_by_its_short_name(tmp_path: Path, wheel: Path) -> None:
    python = install(wheel, tmp_path / "venv")
    where = "import importlib.metadata as m, orchestrator as o; print(o.__file__, o.__version__, m.version(NAME))"
    found = subprocess.run(
        [python, "-c", where.replace("NAME", "'batch-inference-orchestrator'")],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    file, ours, installed = found.stdout.split()
    assert Path(file).is_relative_to(tmp_path / "venv")
    assert ours == installed
    said = subprocess.run([python.with_name("orchestrator"), "--version"], check=True, capture_output=True, text=True)
    assert said.stdout.startswith(f"orchestrator {ours} · ")


def test_the_wheel_holds_every_file_that_the_pages_load(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for folder in ("orchestrator/server/page/static", "orchestrator/report"):
        ours = [f"{folder}/{path.name}" for path in (ROOT / folder).iterdir() if path.is_file()]
        assert f"{folder}/page.css" in ours
        assert set(ours) <= set(names)


def test_a_job_with_a_remote_endpoint_runs_without_the_packages_of_the_extras(
    workplace: Workplace, wheel: Path
) -> None:
    python = install(wheel, workplace.folder / "venv")
    (packages,) = (workplace.folder / "venv").glob("lib/python*/site-packages")
    for module in REMOTE_NEEDS_NONE:
        (packages / f"{module}.py").write_text("raise ModuleNotFoundError(f'No module named {__name__!r}')\n")
    workplace.write_rows(rows(range(5)))
    ran = subprocess.run(
        [python.with_name("orchestrator"), "run", "--quiet", workplace.job()],
        env=workplace.environment(),
        cwd=workplace.folder,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert len(workplace.outputs()) == 5


@pytest.mark.slow
def test_the_wheel_runs_a_job_in_an_empty_environment(workplace: Workplace, wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "orchestrator/migrations/versions/0001_ledger.py" in names
    assert "orchestrator/migrations/versions/0002_awake_windows.py" in names
    assert "orchestrator/guard/watch.py" in names
    assert not [name for name in names if name.startswith(("tests", "migrations", "bench", "jobs"))]
    venv = workplace.folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    pip = [str(venv / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    installed = subprocess.run(
        [*pip, "--constraint", str(ROOT / "constraints.txt"), str(wheel)], check=False, capture_output=True, text=True
    )
    if installed.returncode and "No matching distribution" in installed.stderr and not os.environ.get("CI"):
        pytest.skip(f"the packages cannot be fetched here: {installed.stderr.strip()}")
    assert installed.returncode == 0, installed.stderr
    (packages,) = venv.glob("lib/python*/site-packages")
    assert not [module for module in REMOTE_NEEDS_NONE if (packages / module).exists()]
    workplace.write_rows(rows(range(50)))
    job = workplace.job()
    elsewhere = workplace.folder / "elsewhere"
    elsewhere.mkdir()
    command = [str(venv / "bin/orchestrator"), "run", "--quiet", str(job)]
    for _ in range(2):
        ran = subprocess.run(
            command, env=workplace.environment(), cwd=elsewhere, check=False, capture_output=True, text=True
        )
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert (workplace.folder / ".local/share/orchestrator/ledger.db").is_file()
    assert [row["output"]["said"] for row in workplace.outputs()] == [answer_to(f"text of {n}") for n in range(50)]
