"""Packages that only some tasks need. `tests/cli/test_worker_errors.py` shows how a run reports a missing one."""

from __future__ import annotations

import sys

import pytest

from orchestrator.worker.model import LoadFailed
from orchestrator.worker.needed_packages import check_packages


@pytest.mark.parametrize(
    ("task", "package"),
    [("mask-generation", "torchvision"), ("table-question-answering", "pandas"), ("video-classification", "av")],
)
def test_a_task_names_the_package_that_it_needs(task: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(LoadFailed, match=f"task '{task}' needs the package {package}, which is not installed: .*insta"):
        check_packages(task)
    monkeypatch.delitem(sys.modules, package)
    check_packages("text-classification")
