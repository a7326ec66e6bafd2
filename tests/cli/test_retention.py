"""Old runs are deleted automatically, as config.toml says."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.commands import rows

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commands import Workplace

DAY = 86400.0


def two_old_runs(workplace: Workplace) -> Path:
    for first in (0, 10):
        workplace.write_rows(rows(range(first, first + 3)))
        job = workplace.job()
        assert workplace.run("run", "--quiet", job).code == 0
    workplace.change("UPDATE run SET finished_at = ?", [time.time() - 100 * DAY])
    workplace.change("DELETE FROM upkeep")  # the next day
    workplace.write_rows(rows(range(20, 23)))
    return job


@pytest.mark.parametrize(
    ("config", "kept"),
    [("", [3]), ("[retention]\nkeep = '30w'", [1, 2, 3]), ("[retention]\nkeep = 'never'", [1, 2, 3])],
)
def test_old_rows_that_nothing_needs_are_deleted_after_a_run(
    workplace: Workplace, config: str, kept: list[int]
) -> None:
    job = two_old_runs(workplace)
    path = workplace.folder / "config.toml"
    path.write_text(config)
    ended = workplace.run("--config", path, "run", "--quiet", job)
    assert (ended.code, ended.err) == (0, "")
    assert [run for (run,) in workplace.query("SELECT id FROM run ORDER BY id")] == kept
    assert workplace.count("item") == 3 * len(kept)


def test_retention_happens_once_a_day(workplace: Workplace) -> None:
    job = two_old_runs(workplace)
    workplace.change("INSERT INTO upkeep VALUES ('retention', ?)", [time.time() - DAY / 2])
    assert workplace.run("run", "--quiet", job).code == 0
    assert workplace.count("run") == 3


def test_an_invalid_age_is_refused(workplace: Workplace) -> None:
    path = workplace.folder / "config.toml"
    path.write_text("[retention]\nkeep = 'a while'\n")
    ended = workplace.run("--config", path, "runs")
    assert ended.code == 2
    assert "'a while' is not" in ended.line
