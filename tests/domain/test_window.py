from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from orchestrator import Policy
from orchestrator.domain.wall_clock import moment_of, shown_at, zone_named
from orchestrator.domain.window import window_of

HOUR = 3600.0
ZONES = sorted(
    name for name in available_timezones() if "/" in name and not name.startswith(("Etc/", "posix/", "right/"))
)
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def paris(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Paris")).timestamp()


@pytest.mark.parametrize(
    ("text", "now", "is_open", "opens_at", "closes_at"),
    [
        ("22:00-06:00", utc("2026-11-21 21:59:59"), False, utc("2026-11-21 22:00"), utc("2026-11-22 06:00")),
        ("22:00-06:00", utc("2026-11-21 22:00"), True, utc("2026-11-21 22:00"), utc("2026-11-22 06:00")),
        ("22:00-06:00", utc("2026-11-22 05:59:59"), True, utc("2026-11-21 22:00"), utc("2026-11-22 06:00")),
        ("22:00-06:00", utc("2026-11-22 06:00"), False, utc("2026-11-22 22:00"), utc("2026-11-23 06:00")),
        ("9:30-17:00", utc("2026-11-22 12:00"), True, utc("2026-11-22 09:30"), utc("2026-11-22 17:00")),
        # a Friday's night goes on into Saturday, and the next one is Monday's
        ("mon-fri 22:00-06:00", utc("2026-11-21 05:00"), True, utc("2026-11-20 22:00"), utc("2026-11-21 06:00")),
        ("mon-fri 22:00-06:00", utc("2026-11-21 07:00"), False, utc("2026-11-23 22:00"), utc("2026-11-24 06:00")),
        # whole days without a break are one span
        ("sat-sun 00:00-24:00", utc("2026-11-21 07:00"), True, utc("2026-11-21 00:00"), utc("2026-11-23 00:00")),
        ("fri,sun-mon 00:00-24:00", utc("2026-11-23 07:00"), True, utc("2026-11-22 00:00"), utc("2026-11-24 00:00")),
        # the night is an hour shorter, or longer
        ("22:00-06:00 Europe/Paris", paris("2026-03-28 23:00"), True, utc("2026-03-28 21:00"), utc("2026-03-29 04:00")),
        ("22:00-06:00 Europe/Paris", paris("2026-10-24 23:00"), True, utc("2026-10-24 20:00"), utc("2026-10-25 05:00")),
        # 02:30 does not exist: it opens when the clock is put forward, at 03:00
        ("02:30-04:00 Europe/Paris", utc("2026-03-29 00:00"), False, utc("2026-03-29 01:00"), utc("2026-03-29 02:00")),
        # 02:15 comes twice: it opens once, and closes at the first 02:45
        ("02:15-02:45 Europe/Paris", utc("2026-10-25 00:00"), False, utc("2026-10-25 00:15"), utc("2026-10-25 00:45")),
        ("02:15-02:45 Europe/Paris", utc("2026-10-25 01:20"), False, utc("2026-10-26 01:15"), utc("2026-10-26 01:45")),
        # all of it is skipped: there is none that day
        ("02:15-02:45 Europe/Paris", utc("2026-03-29 00:00"), False, utc("2026-03-30 00:15"), utc("2026-03-30 00:45")),
        (
            "sun 02:15-02:45 Europe/Paris",
            utc("2026-03-29 00:00"),
            False,
            utc("2026-04-05 00:15"),
            utc("2026-04-05 00:45"),
        ),
    ],
)
def test_a_window_is_open_from_its_beginning_until_its_end(
    text: str, now: float, *, is_open: bool, opens_at: float, closes_at: float
) -> None:
    window = window_of(text)
    assert (window.is_open(now), window.opens_at(now), window.closes_at(now)) == (is_open, opens_at, closes_at)


def test_a_window_without_an_end_never_closes() -> None:
    window = window_of("00:00-24:00 Europe/Paris")
    assert window.is_open(utc("2026-11-21 12:00"))
    assert window.closes_at(utc("2026-11-21 12:00")) == math.inf


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("at night", "is not a time window"),
        ("22:00-06:00, sat 00:00-24:00", "is not a time window"),
        ("22:00-22:00", "opens when it closes"),
        ("24:00-06:00", "opens when it closes"),
        ("22:60-06:00", "'22:60' is not a time of day"),
        ("24:01-06:00", "'24:01' is not a time of day"),
        ("22:00:60-06:00", "'22:00:60' is not a time of day"),
        ("mon-foo 22:00-06:00", "'mon-foo' is not a day of the week"),
        ("mon-tue-wed 22:00-06:00", "'mon-tue-wed' is not a day of the week"),
        ("22:00-06:00 Europe/Atlantis", "there is no time zone 'Europe/Atlantis'"),
        ("22:00-06:00 ../../etc/passwd", "there is no time zone"),
        (8, "must be a string, not 8"),
    ],
)
def test_an_invalid_window_is_refused_in_one_line(text: object, says: str) -> None:
    with pytest.raises(ValueError, match=says) as refused:
        Policy(window=text)  # type: ignore[arg-type]
    assert str(refused.value).startswith("policy.window")
    assert "\n" not in str(refused.value)


@st.composite
def days_of_change(draw: st.DrawFn) -> tuple[str, float]:
    """A zone and a moment within two days of a change of its clock, where it changes in that year."""
    name = draw(st.sampled_from(ZONES))
    year = draw(st.integers(1990, 2037))
    zone = zone_named(name)
    days = [datetime(year, 1, 1, tzinfo=UTC) + timedelta(days=number) for number in range(366)]
    changes = [
        later
        for earlier, later in pairwise(days)
        if earlier.astimezone(zone).utcoffset() != later.astimezone(zone).utcoffset()
    ]
    day = draw(st.sampled_from(changes or days))
    return name, day.timestamp() + draw(st.integers(-48 * 3600, 48 * 3600))


TIMES = st.tuples(st.integers(0, 23), st.integers(0, 59)).map(lambda time: "{:02}:{:02}".format(*time))
WINDOWS = st.tuples(TIMES, TIMES, st.sets(st.sampled_from(DAYS), min_size=1))


@given(days_of_change(), WINDOWS)
@example(("Pacific/Apia", utc("2011-12-30 12:00")), ("22:00", "06:00", {*DAYS}))  # a day that was left out
@example(("Africa/Cairo", utc("2026-04-23 22:30")), ("00:30", "00:45", {*DAYS}))  # a gap at midnight
@example(("Australia/Lord_Howe", utc("2026-04-04 15:00")), ("01:45", "02:15", {*DAYS}))  # half an hour
def test_windows_open_once_and_close_even_on_days_with_clock_changes(
    where: tuple[str, float], given_window: tuple[str, str, set[str]]
) -> None:
    (name, now), (opens, closes, days) = where, given_window
    assume(opens != closes)
    window = window_of(f"{','.join(sorted(days))} {opens}-{closes} {name}")
    opens_at, closes_at = window.opens_at(now), window.closes_at(now)
    assert opens_at < closes_at > now
    assert window.is_open(now) == (opens_at <= now)
    # nothing changes between the moments that were told
    between = [
        moment for moment in (now, opens_at, (opens_at + closes_at) / 2, closes_at - 1) if now <= moment < closes_at
    ]
    for moment in between:
        assert (window.opens_at(moment), window.closes_at(moment)) == (opens_at, closes_at)
        assert window.is_open(moment) == (moment >= opens_at)
    assert not window.is_open(closes_at)
    assert window.opens_at(closes_at) > closes_at
    assert closes_at - opens_at <= 50 * HOUR


@given(days_of_change(), st.integers(0, 86399), st.integers(0, 4 * 3600))
def test_later_wall_clock_times_never_give_earlier_moments(where: tuple[str, float], second: int, later: int) -> None:
    name, now = where
    zone = ZoneInfo(name)
    wall = shown_at(now, zone).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(seconds=second)
    first, then = moment_of(wall, zone), moment_of(wall + timedelta(seconds=later), zone)
    assert first <= then
    assert shown_at(first, zone) >= wall
    assert shown_at(first - 1, zone) < wall
