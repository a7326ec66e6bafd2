from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from orchestrator.domain.since import since

PARIS = ZoneInfo("Europe/Paris")
NOW = datetime(2026, 11, 20, 8, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("yesterday", "2026-11-19T00:00+01:00"),
        ("today", "2026-11-20T00:00+01:00"),
        ("12h", "2026-11-19T20:30+00:00"),
        ("2d", "2026-11-18T08:30+00:00"),
        ("1w", "2026-11-13T08:30+00:00"),
        (" Yesterday ", "2026-11-19T00:00+01:00"),
        ("2026-11-18", "2026-11-18T00:00+01:00"),
        ("2026-11-18T18:00", "2026-11-18T18:00+01:00"),
        ("2026-11-18 18:00", "2026-11-18T18:00+01:00"),
        ("2026-11-18T18:00Z", "2026-11-18T18:00+00:00"),
    ],
)
def test_what_people_type_is_understood(text: str, means: str) -> None:
    assert since(text, NOW.timestamp(), PARIS) == datetime.fromisoformat(means).timestamp()


def test_yesterday_began_25_hours_before_today_when_clocks_were_put_back() -> None:
    now = datetime(2026, 10, 26, 6, 0, tzinfo=UTC).timestamp()
    assert since("today", now, PARIS) - since("yesterday", now, PARIS) == 25 * 3600


@pytest.mark.parametrize("text", ["", "soon", "-2h", "2026-13-01", "12"])
def test_anything_else_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match="write yesterday, today"):
        since(text, NOW.timestamp(), PARIS)


def test_the_future_is_refused() -> None:
    with pytest.raises(ValueError, match="lies in the future"):
        since("2026-11-21", NOW.timestamp(), PARIS)
