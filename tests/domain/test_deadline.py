from __future__ import annotations

from datetime import UTC, datetime

import pytest

from orchestrator import Policy
from orchestrator.domain.deadline import deadline_at

SUBMITTED = datetime(2026, 11, 21, 22, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("8h", "2026-11-22 06:00"),
        ("90m", "2026-11-21 23:30"),
        ("07:00", "2026-11-22 07:00"),
        ("22:00", "2026-11-22 22:00"),  # not the one at which it was submitted
        ("07:00 Europe/Paris", "2026-11-22 06:00"),
        ("23:30 Europe/Paris", "2026-11-21 22:30"),
    ],
)
def test_a_deadline_is_counted_from_the_submission(text: str, moment: str) -> None:
    found = datetime.fromtimestamp(deadline_at(text, SUBMITTED.timestamp()), UTC)
    assert f"{found:%Y-%m-%d %H:%M}" == moment


@pytest.mark.parametrize("text", ["soon", "8", "25:00", "07:00 Europe/Atlantis", 8])
def test_what_is_no_deadline_is_refused_in_one_line(text: object) -> None:
    with pytest.raises(ValueError, match=r"^policy\.deadline[^\n]*$"):
        Policy(deadline=text)  # type: ignore[arg-type]
