"""Events as lines of a log, and how many of them a log takes."""

from __future__ import annotations

import logging
from dataclasses import is_dataclass
from datetime import UTC, datetime
from typing import get_args

import pytest

from orchestrator.domain import events
from orchestrator.domain.event_lines import AT_ONCE, PERIOD, Condenser, level_of, line_of
from orchestrator.domain.run import Plan


def failed(number: int, kind: str = "unavailable", retry_in: float | None = 1.5) -> events.AttemptFailed:
    return events.AttemptFailed("e", number, f"i{number}", 1, kind, 503, "overloaded", retry_in)


def test_every_event_belongs_to_the_union() -> None:
    defined = {one for one in vars(events).values() if is_dataclass(one) and one.__module__ == events.__name__}
    assert set(get_args(events.RunEvent)) == defined


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (events.EndpointAwake("qwen", 41.23456), "endpoint_awake endpoint=qwen after=41.235"),
        (
            events.WaitBegan(3, datetime(2026, 11, 29, 20, 44, 28, 500, UTC), "no replica is ready"),
            'wait_began items=3 until=2026-11-29T20:44:28Z why="no replica is ready"',
        ),
        (
            failed(7, retry_in=None),
            "attempt_failed endpoint=e number=7 item=i7 attempt=1 kind=unavailable status=503 message=overloaded",
        ),
        (
            events.SourceRead(Plan(new=2), complete=True),
            "source_read new=2 edited=0 reused=0 retry=0 discarded=0 left_out=0 complete=true",
        ),
        (events.PauseAsked("e", to_zero=False), "pause_asked endpoint=e to_zero=false"),
        (events.StateSeen("e", "starting", ""), "state_seen endpoint=e state=starting"),
    ],
)
def test_an_event_is_one_line_of_names_and_values(event: events.RunEvent, line: str) -> None:
    assert line_of(event) == line


def test_a_line_contains_no_control_characters_and_cannot_forge_another_line() -> None:
    line = line_of(events.SessionLost("e", 'gone\n2026 INFO run_ended\x1b[31m \x9b \u202e "x=1"', 1, None))
    assert line.removesuffix(" losses=1 requests=0") == (
        'session_lost endpoint=e why="gone\\n2026 INFO run_ended\\u001b[31m \\x9b \\u202e \\"x=1\\""'
    )


def test_problems_are_warnings_and_frequent_events_are_debug_messages() -> None:
    assert level_of(events.PauseNotConfirmed("e", "it is running")) == logging.ERROR
    assert level_of(events.SessionLost("e", "gone", 1, 0.0)) == logging.WARNING
    assert level_of(events.RunEnded(1, "failed", "why")) == logging.WARNING
    assert level_of(events.RunEnded(1, "finished")) == logging.INFO
    assert level_of(failed(1)) == logging.DEBUG
    assert level_of(events.ItemsSettled(1, 0, 0, 9)) < logging.DEBUG


def test_of_many_similar_events_the_first_are_written_and_the_rest_are_counted() -> None:
    condenser = Condenser()
    written = [line for number in range(1000) for line in condenser.take(failed(number), number / 1000)]
    assert [line for _, line in written] == [line_of(failed(number)) for number in range(AT_ONCE)]
    other = failed(0, "timeout")
    assert condenser.take(other, 1.0) == [(logging.DEBUG, line_of(other))]
    assert condenser.due(PERIOD - 0.01) == []
    assert condenser.due(PERIOD) == [(logging.DEBUG, f"{line_of(failed(999))} repeated={1000 - AT_ONCE}")]
    assert condenser.take(failed(1), PERIOD) == [(logging.DEBUG, line_of(failed(1)))]


def test_commits_are_summed_into_one_line_per_period() -> None:
    condenser = Condenser()
    for left in range(99, -1, -1):
        assert condenser.take(events.ItemsSettled(1, 0, 2, left), 0.0) == []
    assert condenser.due(PERIOD) == [(logging.INFO, "items_settled completed=100 discarded=0 to_retry=200 left=0")]
    assert condenser.due(2 * PERIOD) == []


def test_an_unchanged_provider_state_is_one_line_until_it_changes() -> None:
    condenser = Condenser()
    words = ["initializing, 0 of 1 replicas"] * 10 + ["initializing, 1 of 1 replicas"] * 2
    seen = [events.StateSeen("e", "starting", word) for word in words]
    written = [line for number, event in enumerate(seen) for _, line in condenser.take(event, number * 4.0)]
    assert written == [line_of(seen[0]), line_of(seen[-1])]
    assert [line for _, line in condenser.rest()] == [
        f"{line_of(seen[0])} repeated=9",
        f"{line_of(seen[-1])} repeated=1",
    ]


def test_states_that_were_seen_again_are_written_before_what_happened_next_to_their_endpoint() -> None:
    condenser = Condenser()
    starting, awake = events.StateSeen("e", "starting", "0 of 1 replicas"), events.EndpointAwake("e", 9.0)
    for number in range(4):
        condenser.take(starting, number * 4.0)
    assert [line for _, line in condenser.take(events.EndpointAwake("other", 3.0), 13.0)] == [
        "endpoint_awake endpoint=other after=3"
    ]
    assert [line for _, line in condenser.take(awake, 14.0)] == [f"{line_of(starting)} repeated=3", line_of(awake)]
    assert condenser.rest() == []


@pytest.mark.parametrize(
    "event", [events.DeliveryBegan("out.jsonl"), events.RunHeld(1), events.RunEnded(1, "finished")]
)
def test_lines_held_back_are_written_before_the_end_of_the_work(event: events.RunEvent) -> None:
    condenser = Condenser()
    condenser.take(events.ItemsSettled(3, 0, 0, 0), 0.0)
    lines = [line for _, line in condenser.take(event, 1.0)]
    assert lines == ["items_settled completed=3 discarded=0 to_retry=0 left=0", line_of(event)]
