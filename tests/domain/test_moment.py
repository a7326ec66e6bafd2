from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import Policy
from orchestrator.domain.moment import deadline_at, moment_at, since

PARIS = ZoneInfo("Europe/Paris")
NOW = datetime(2026, 11, 21, 18, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "zone", "meant"),
    [
        ("+2h", UTC, datetime(2026, 11, 21, 20, 30, tzinfo=UTC)),
        ("90s", UTC, datetime(2026, 11, 21, 18, 31, 30, tzinfo=UTC)),
        ("22:00", UTC, datetime(2026, 11, 21, 22, 0, tzinfo=UTC)),
        ("22:00", PARIS, datetime(2026, 11, 21, 21, 0, tzinfo=UTC)),
        ("18:30", UTC, datetime(2026, 11, 22, 18, 30, tzinfo=UTC)),
        ("07:00 Europe/Paris", UTC, datetime(2026, 11, 22, 6, 0, tzinfo=UTC)),
        ("2026-11-22 03:00", PARIS, datetime(2026, 11, 22, 2, 0, tzinfo=UTC)),
        ("2026-11-22T03:00Z", PARIS, datetime(2026, 11, 22, 3, 0, tzinfo=UTC)),
        ("2026-11-22 03:00 Asia/Tokyo", PARIS, datetime(2026, 11, 21, 18, 0, tzinfo=UTC)),
        ("2027-03-28 02:30", PARIS, datetime(2027, 3, 28, 1, 0, tzinfo=UTC)),  # skipped: the end of the gap
    ],
)
def test_a_text_gives_the_moment_that_the_user_means(text: str, zone: tzinfo, meant: datetime) -> None:
    assert moment_at(text, NOW.timestamp(), zone) == meant.timestamp()


@pytest.mark.parametrize("text", ["", "soon", "25:00", "2026-13-01 00:00", "2h30", "22:00 Mars/Olympus", "-2h"])
def test_anything_else_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        moment_at(text, NOW.timestamp(), UTC)


@given(st.integers(0, 23), st.integers(0, 59), st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)))  # noqa: DTZ001 - in Paris
def test_a_time_of_day_is_the_next_one(hour: int, minute: int, at: datetime) -> None:
    now = at.replace(tzinfo=PARIS).timestamp()
    found = moment_at(f"{hour}:{minute:02}", now, PARIS)
    assert now < found <= now + 25 * 3600
    shown = datetime.fromtimestamp(found, PARIS)
    gap = shown.hour == 3 and shown.minute == 0 and hour == 2
    assert (shown.hour, shown.minute) == (hour, minute) or gap


@pytest.mark.parametrize("text", ["+999999999d", "+" + "9" * 400 + "w", "0001-01-01 00:00", "9999-12-31 23:59"])
@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "America/New_York"])
def test_a_moment_out_of_range_is_refused(text: str, zone: str) -> None:
    with pytest.raises(ValueError, match="is out of range"):
        moment_at(text, 1e9, ZoneInfo(zone))


MORNING = datetime(2026, 11, 20, 8, 30, tzinfo=UTC)


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
def test_common_ways_to_write_a_start_are_accepted(text: str, means: str) -> None:
    assert since(text, MORNING.timestamp(), PARIS) == datetime.fromisoformat(means).timestamp()


def test_yesterday_began_25_hours_before_today_if_the_clocks_went_back() -> None:
    now = datetime(2026, 10, 26, 6, 0, tzinfo=UTC).timestamp()
    assert since("today", now, PARIS) - since("yesterday", now, PARIS) == 25 * 3600


@pytest.mark.parametrize("text", ["", "soon", "-2h", "2026-13-01", "12"])
def test_anything_else_is_refused_with_the_valid_forms(text: str) -> None:
    with pytest.raises(ValueError, match="write yesterday, today"):
        since(text, MORNING.timestamp(), PARIS)


def test_the_future_is_refused() -> None:
    with pytest.raises(ValueError, match="is in the future"):
        since("2026-11-21", MORNING.timestamp(), PARIS)


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
def test_a_deadline_is_relative_to_the_submission(text: str, moment: str) -> None:
    found = datetime.fromtimestamp(deadline_at(text, SUBMITTED.timestamp()), UTC)
    assert f"{found:%Y-%m-%d %H:%M}" == moment


@pytest.mark.parametrize("text", ["soon", "8", "25:00", "07:00 Europe/Atlantis", 8])
def test_an_invalid_deadline_is_refused_in_one_line(text: object) -> None:
    with pytest.raises(ValueError, match=r"^policy\.deadline[^\n]*$"):
        Policy(deadline=text)  # type: ignore[arg-type]
