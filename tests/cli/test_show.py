"""Commands print the counts and causes of a run: their lines, from values that no run has made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.cli.show import show_causes
from orchestrator.domain.run import Cause

if TYPE_CHECKING:
    import pytest


def test_items_with_causes_that_are_not_listed_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    causes = [Cause("rejected", 400, "too long", 3, "a"), Cause("timeout", None, "late", 2, "b")]
    show_causes(causes, 5)
    assert "other causes" not in capsys.readouterr().err
    show_causes(causes, 6)
    assert capsys.readouterr().err.splitlines()[-1] == "and 1 item for other causes"
