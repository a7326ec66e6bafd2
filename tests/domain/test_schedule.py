from __future__ import annotations

import re
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice, pairwise, takewhile
from typing import get_args
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.domain.schedule import (
    ON_TIME,
    CatchUp,
    Cron,
    Overlap,
    Start,
    decide,
    delay,
    in_zone,
    next_after,
    overlap,
    remark,
    seconds,
    slots_after,
)

HOUR, DAY = 3600.0, 86400.0
LOOKS = 8  # moments that are checked between two slots
# gaps of an hour, half an hour, two hours; at midnight; a day that does not exist; twice in a month; none
ZONES = [
    ("Europe/Paris", 2024),
    ("America/New_York", 2026),
    ("Australia/Lord_Howe", 2025),
    ("Antarctica/Troll", 2024),
    ("America/Havana", 2025),
    ("Africa/Cairo", 2024),
    ("America/Sao_Paulo", 2018),
    ("Asia/Beirut", 2024),
    ("Pacific/Apia", 2011),
    ("Africa/Casablanca", 2024),
    ("Europe/Dublin", 2023),
    ("America/Caracas", 2016),
    ("Asia/Kolkata", 2024),
    ("UTC", 2024),
]
EXPRESSIONS = [
    "30 2 * * *",
    "0,30 0-3 * * *",
    "15 23 * * *",
    "0 0 * * *",
    "0 12 30 * *",
    "*/20 * * * *",
    "30 * * * *",
    "*/10 2 * * *",
    "*/15 0,23 * * *",
    "* 1 * * 0",
    "59 1 * * SUN",
]


def at(text: str, zone: str = "UTC", fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def shown(slots: list[float], zone: str) -> list[str]:
    return [datetime.fromtimestamp(slot, ZoneInfo(zone)).strftime("%d %H:%M %Z") for slot in slots]


def slots(expression: str, zone: str, after: str, many: int) -> list[str]:
    return shown(list(islice(slots_after(Cron(expression, zone), at(after, zone)), many)), zone)


@cache
def changes(zone: str, year: int) -> list[float]:
    """Moments at which the clock of a zone is changed, found the slow way: by looking at each quarter of an hour."""
    place = ZoneInfo(zone)
    begin = datetime(year, 1, 1, tzinfo=UTC).timestamp()
    offsets = [datetime.fromtimestamp(begin + 900 * step, place).utcoffset() for step in range(366 * 96)]
    return [begin + 900 * step for step in range(1, len(offsets)) if offsets[step] != offsets[step - 1]]


# -- which moments are slots ------------------------------------------------------------------------------------------


@pytest.mark.untraced
@pytest.mark.parametrize("expression", EXPRESSIONS)
@pytest.mark.parametrize(("zone", "year"), ZONES)
def test_every_moment_until_the_next_slot_says_the_same_next_slot(zone: str, year: int, expression: str) -> None:
    cron = Cron(expression, zone)
    for change in changes(zone, year) or [at(f"{year}-06-01")]:
        moment, end = change - 1.2 * DAY, change + 1.2 * DAY
        found = next_after(cron, moment)
        while found is not None and moment < end:
            assert found > moment
            step = max(1.0, (min(found, end) - moment) / LOOKS)
            for number in range(LOOKS):
                asked = moment + number * step
                if asked < found:
                    assert next_after(cron, asked) == found
            assert next_after(cron, found - 1) == found
            assert next_after(cron, found - 0.25) == found
            moment, found = found, next_after(cron, found)


@pytest.mark.untraced
@pytest.mark.parametrize("expression", EXPRESSIONS)
@pytest.mark.parametrize(("zone", "year"), ZONES)
def test_slots_match_the_rule_applied_to_every_minute(zone: str, year: int, expression: str) -> None:
    cron = Cron(expression, zone)
    for change in changes(zone, year) or [at(f"{year}-06-01")]:
        begin, end = change - 1.2 * DAY // 60 * 60, change + 1.2 * DAY // 60 * 60
        expected = by_looking(cron, begin, end)
        found = []
        for slot in slots_after(cron, begin):
            if slot > end:
                break
            found.append(slot)
        assert shown(found, zone) == shown(expected, zone)
        assert all(one < other for one, other in pairwise(found))


def by_looking(cron: Cron, begin: float, end: float) -> list[float]:
    """The rule once more, by brute force: walk through time by the minute and watch the wall clock."""
    utc = Cron(cron.expression)  # without a zone, an expression says which wall clock times it means
    place = ZoneInfo(cron.tz)

    def wall(moment: float) -> float:
        return datetime.fromtimestamp(moment, place).replace(tzinfo=UTC).timestamp()

    first, last = wall(begin) - DAY, wall(end) + DAY
    times = set(takewhile(lambda time: time <= last, slots_after(utc, first)))

    def meant(time: float) -> bool:
        return time in times

    found, highest = [], wall(begin)
    for number in range(1, round((end - begin) / 60) + 1):
        moment = begin + 60 * number
        here = wall(moment)
        if not cron.by_the_clock:
            hit = meant(here)
        elif here > highest:  # all that the wall clock has come to or jumped over since it was highest
            hit = any(meant(highest + 60 * step) for step in range(1, round((here - highest) / 60) + 1))
        else:
            hit = False
        found += [moment] if hit else []
        highest = max(highest, here)
    return found


@pytest.mark.untraced
@given(
    st.sampled_from(ZONES),
    st.sampled_from(EXPRESSIONS),
    st.floats(0, 365 * DAY - 1),
    st.integers(0, 3 * 86400),
)
@example(("Australia/Lord_Howe", 2025), "*/10 2 * * *", 95 * DAY, 0)
def test_slots_in_an_interval_do_not_depend_on_where_the_search_begins(
    place: tuple[str, int], expression: str, begin: float, later: int
) -> None:
    zone, year = place
    cron = Cron(expression, zone)
    first = datetime(year, 1, 1, tzinfo=UTC).timestamp() + begin
    run = list(islice(slots_after(cron, first), 50))
    rest = [slot for slot in run if slot > first + later]
    assert rest == list(islice(slots_after(cron, first + later), len(rest)))


def test_a_fixed_time_in_a_gap_comes_once_at_its_end() -> None:
    assert slots("30 2 * * *", "Europe/Paris", "2024-03-30 03:00", 2) == ["31 03:00 CEST", "01 02:30 CEST"]
    assert slots("0,15,30 2,3 * * *", "Europe/Paris", "2024-03-31 00:00", 3) == [
        "31 03:00 CEST",
        "31 03:15 CEST",
        "31 03:30 CEST",
    ]
    assert slots("0 0 * * *", "America/Havana", "2025-03-08 12:00", 2) == ["09 01:00 CDT", "10 00:00 CDT"]


def test_a_fixed_time_that_comes_twice_is_taken_the_first_time() -> None:
    assert slots("30 2 * * *", "Europe/Paris", "2024-10-26 12:00", 2) == ["27 02:30 CEST", "28 02:30 CET"]
    between = at("2024-10-27 02:10", "Europe/Paris", fold=1)  # when the clock shows 02:10 for the second time
    assert shown(list(islice(slots_after(Cron("30 2 * * *", "Europe/Paris"), between), 1)), "Europe/Paris") == [
        "28 02:30 CET"
    ]


def test_other_schedules_follow_elapsed_time() -> None:
    assert slots("30 * * * *", "Europe/Paris", "2024-03-31 00:45", 3) == [
        "31 01:30 CET",
        "31 03:30 CEST",
        "31 04:30 CEST",
    ]
    assert slots("30 * * * *", "Europe/Paris", "2024-10-27 01:45", 3) == [
        "27 02:30 CEST",
        "27 02:30 CET",
        "27 03:30 CET",
    ]
    assert slots("*/30 2 * * *", "Europe/Paris", "2024-03-31 00:00", 1) == ["01 02:00 CEST"]


def test_a_zone_whose_clock_goes_back_by_half_an_hour_loses_no_slot() -> None:
    assert slots("*/10 2 * * *", "Australia/Lord_Howe", "2025-04-06 01:00", 3) == [
        "06 02:00 +1030",
        "06 02:10 +1030",
        "06 02:20 +1030",
    ]


def test_unusual_clock_times_are_explained() -> None:
    paris = Cron("30 2 * * *", "Europe/Paris")
    assert "02:30 does not exist" in remark(paris, at("2024-03-31 03:00", "Europe/Paris"))
    assert "02:30 comes twice" in remark(paris, at("2024-10-27 02:30", "Europe/Paris"))
    assert remark(paris, at("2024-10-28 02:30", "Europe/Paris")) == ""
    hourly = Cron("30 * * * *", "Europe/Paris")
    assert "the second 02:30" in remark(hourly, at("2024-10-27 02:30", "Europe/Paris", fold=1))
    assert remark(Cron("0 3 * * *", "Europe/Paris"), at("2024-03-31 03:00", "Europe/Paris")) == ""
    assert in_zone(paris, at("2024-03-31 03:00", "Europe/Paris")).hour == 3


def test_a_slot_years_ahead_is_found() -> None:
    assert slots("*/30 * 29 2 *", "Europe/Paris", "2097-01-01 00:00", 1) == ["29 00:00 CET"]
    assert next_after(Cron("0 0 * 2 MON#5", "Europe/Paris"), at("2025-01-01")) == at("2044-02-29", "Europe/Paris")


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"expression": "61 * * * *"}, "cron '61 * * * *': bad minute"),
        ({"expression": "0 2 * *"}, "needs 5 fields"),
        ({"expression": "0 0 2 * * *"}, "needs 5 fields"),
        ({"expression": "@reboot"}, "needs 5 fields"),
        ({"expression": ""}, "needs 5 fields"),
        ({"expression": None}, "a string like"),
        ({"expression": "0 0 30 2 *"}, "bad day-of-month"),
        ({"tz": "Mars/Olympus"}, "no time zone 'Mars/Olympus'"),
        ({"tz": "../../etc/passwd"}, "no time zone"),
        ({"tz": ""}, "no time zone"),
        ({"overlap": "queue"}, "overlap must be one of skip, buffer_one, allow, cancel_other, not 'queue'"),
        ({"catch_up": "some"}, "catch_up must be one of latest, all, none"),
        ({"catch_up_window": "an hour"}, "catch_up_window must be seconds or a duration"),
        ({"catch_up_window": 5}, "at least 60 seconds"),
        ({"jitter": -1}, "jitter must be at least 0"),
        ({"jitter": True}, "jitter must be seconds"),
        ({"jitter": float("nan")}, "jitter must be seconds"),
    ],
)
def test_an_invalid_schedule_is_refused_in_one_line(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as refused:
        Cron(**{"expression": "0 2 * * *"} | wrong)  # type: ignore[arg-type]  # wrong on purpose
    assert "\n" not in str(refused.value)


@given(st.text(alphabet="0123456789*/-,L#MONJWa ?٣", max_size=20))
def test_any_text_is_a_schedule_or_refused_in_one_line(typed: str) -> None:
    try:
        cron = Cron(typed, "Europe/Paris")
    except ValueError as error:
        said = str(error)
    else:
        said = f"its first slot is {next_after(cron, at('2026-01-01'))}"
    assert "\n" not in said
    assert "None" not in said


def test_a_schedule_is_a_value_and_knows_the_usual_names() -> None:
    daily = Cron("@Daily", "Europe/Paris")
    assert next_after(daily, at("2026-07-01 12:00")) == at("2026-07-02 00:00", "Europe/Paris")
    assert daily == Cron("@Daily", "Europe/Paris")
    with pytest.raises(FrozenInstanceError):
        daily.tz = "UTC"  # type: ignore[misc]  # that is what is tested


@pytest.mark.parametrize(("given_", "meant"), [(90, 90.0), ("90s", 90.0), ("1h30m", 5400.0), ("2d", 172800.0)])
def test_durations_are_seconds_or_short_texts(given_: float | str, meant: float) -> None:
    assert seconds("jitter", given_) == meant


# -- what becomes of slots that are due -------------------------------------------------------------------------------


def due(catch_up: CatchUp, late: timedelta, window: float | str = "1h") -> str:
    """A slot every ten minutes; nobody was there since 00:00, and now it is that much later. f: fires, m: missed."""
    cron = Cron("*/10 * * * *", catch_up=catch_up, catch_up_window=window)
    first = at("2026-01-01 00:00")
    found = decide(cron, first, first + late.total_seconds())
    assert found.following is not None
    assert found.following > first + late.total_seconds()
    assert [slot for slot, _ in found.slots] == [first + 600 * number for number in range(len(found.slots))]
    return "".join("f" if fires else "m" for _, fires in found.slots)


def test_a_slot_on_time_fires_under_every_policy() -> None:
    for catch_up in get_args(CatchUp):
        assert due(catch_up, timedelta(seconds=1)) == "f"


def test_after_downtime_the_policy_decides_what_is_caught_up() -> None:
    assert due("latest", timedelta(minutes=45)) == "mmmmf"
    assert due("all", timedelta(minutes=45)) == "fffff"
    assert due("none", timedelta(minutes=45)) == "mmmmm"
    assert due("none", timedelta(minutes=40, seconds=ON_TIME)) == "mmmmf"


def test_nothing_older_than_the_window_is_caught_up() -> None:
    assert due("all", timedelta(minutes=45), window="25m") == "mmfff"
    assert due("all", timedelta(hours=2, minutes=5), window="20m") == "m" * 11 + "ff"
    nightly = Cron("0 2 * * *")
    two = at("2026-01-01 02:00")
    assert decide(nightly, two, two + 2 * HOUR).slots == ((two, False),)
    assert decide(nightly, two, two + HOUR).slots == ((two, True),)


def test_later_slots_are_left_and_many_slots_are_decided_in_steps() -> None:
    cron = Cron("* * * * *")
    first = at("2026-01-01")
    assert decide(cron, first, first - 1).slots == ()
    step = decide(cron, first, first + DAY, most=100)
    assert (len(step.slots), step.following) == (100, first + 6000)


@given(st.integers(0, 300_000), st.integers(1, 50), st.sampled_from(get_args(CatchUp)))
def test_deciding_in_steps_gives_the_same_result(late: int, most: int, catch_up: CatchUp) -> None:
    cron = Cron("*/7 */2 * * *", "Europe/Paris", catch_up=catch_up)
    first = next_after(cron, at("2026-03-28"))
    assert first is not None
    now = first + late
    whole = decide(cron, first, now, most=10**6)
    parts: list[tuple[float, bool]] = []
    following: float | None = first
    while following is not None and following <= now:
        step = decide(cron, following, now, most)
        parts += step.slots
        following = step.following
    assert (tuple(parts), following) == (whole.slots, whole.following)


@pytest.mark.parametrize(
    ("policy", "alone", "one_executed", "one_waits", "both"),
    [
        ("skip", Start.QUEUE, Start.SKIP, Start.SKIP, Start.SKIP),
        ("buffer_one", Start.QUEUE, Start.QUEUE, Start.SKIP, Start.SKIP),
        ("allow", Start.QUEUE, Start.QUEUE, Start.QUEUE, Start.QUEUE),
        ("cancel_other", Start.QUEUE, Start.REPLACE, Start.REPLACE, Start.REPLACE),
    ],
)
def test_how_a_slot_treats_earlier_runs(
    policy: Overlap, alone: Start, one_executed: Start, one_waits: Start, both: Start
) -> None:
    found = [overlap(policy, *counts) for counts in ((0, 0), (1, 0), (0, 1), (1, 1))]
    assert found == [alone, one_executed, one_waits, both]


@given(st.integers(0, 10**6), st.floats(0.001, 1e5))
def test_jitter_is_below_its_limit_and_the_same_for_a_slot(slot: int, jitter: float) -> None:
    cron = Cron("* * * * *", jitter=jitter)
    wait = delay(cron, "job", slot * 60.0)
    assert 0 <= wait < jitter
    assert wait == delay(cron, "job", slot * 60.0)


def test_jitter_differs_from_job_to_job_and_from_slot_to_slot() -> None:
    cron = Cron("* * * * *", jitter="10m")
    waits = {delay(cron, job, slot) for job in ("a", "b", "c") for slot in (0.0, 60.0, 120.0)}
    assert len(waits) == 9
    assert delay(Cron("* * * * *"), "a", 60.0) == 0
