"""A third party's kinds in a project of their own: they pass the suites, and broken ones fail the test of their fault."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def run_suite(project: Path) -> tuple[str, dict[str, str]]:
    """Run pytest in the project as its owner would, without our settings or plugins; the outcome of each test."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    environment |= {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "--rootdir", str(project), str(project)]
    ran = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    return ran.stdout + ran.stderr, dict(re.findall(r"::(test_\w+)\S* (PASSED|FAILED|ERROR)", ran.stdout))


def blocks(heading: str) -> dict[str, str]:
    """The files that a section of CONTRIBUTING.md writes: each code block begins with its name."""
    section = GUIDE.split(f"## {heading}\n")[1].split("\n## ")[0]
    return dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", section, re.DOTALL))


def write(project: Path, files: dict[str, str]) -> None:
    for name, source in files.items():
        (project / name).write_text(source, encoding="utf-8")
