"""Formats events as log lines (`endpoint_awake endpoint=qwen after=41.2`) and limits how many are written."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from orchestrator.domain import events
from orchestrator.domain.phrases import visible

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from orchestrator.domain.events import RunEvent

PERIOD = 60.0  # seconds
AT_ONCE = 5  # lines of one kind per period; further events are only counted
TOO_MANY = 5  # the level of events that occur by the thousand: below DEBUG

_LEVELS: dict[type, int] = {
    events.ItemsSettled: TOO_MANY,
    events.AttemptFailed: logging.DEBUG,
    events.StateSeen: logging.DEBUG,
    events.PriceSeen: logging.DEBUG,
    events.AwakeWindowEntered: logging.DEBUG,
    events.LimitChanged: logging.DEBUG,
    events.BatchSizeChanged: logging.DEBUG,
    events.LedgerBusy: logging.WARNING,
    events.SessionLost: logging.WARNING,
    events.MemberRests: logging.WARNING,
    events.GuardReplaced: logging.WARNING,
    events.BudgetReached: logging.WARNING,
    events.EndpointDropped: logging.WARNING,
    events.HookFailed: logging.WARNING,
    events.PauseNotConfirmed: logging.ERROR,
}
_PLAIN = re.compile(r"[^\s\"=\\]+")


def level_of(event: RunEvent) -> int:
    """Return the `logging` level of an event."""
    match event:
        case events.SourceRead(complete=False):
            return TOO_MANY
        case events.DebtSwept(failure=str()) | events.RunEnded(outcome="failed"):
            return logging.WARNING
        case _:
            return _LEVELS.get(type(event), logging.INFO)


def line_of(event: RunEvent) -> str:
    """Return the event's name and its non-empty fields on one line without control characters."""
    return " ".join([name_of(type(event)), *(f"{name}={_shown(value)}" for name, value in _fields(event))])


def name_of(kind: type) -> str:
    """Return `endpoint_awake` for `EndpointAwake`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


def _fields(value: Any) -> Iterator[tuple[str, object]]:
    for field in fields(value):
        inner = getattr(value, field.name)
        if is_dataclass(inner):
            yield from _fields(inner)
        elif inner not in (None, "", ()):
            yield field.name, inner


def _shown(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case float():
            return f"{round(value, 3):g}"
        case datetime():
            return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        case tuple():
            return _shown("; ".join(map(str, value)))
        case _:
            text = str(value)
            return visible(text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False))


class Condenser:
    """Keeps many events from flooding a log: writes the first few of each kind per period and counts the rest.

    Commits are summed into one line per period.
    """

    def __init__(self) -> None:
        self._since: float | None = None  # when the period began: the time of its first event
        self._lines: dict[tuple[object, ...], int] = {}  # lines written, by kind
        self._held_back: dict[tuple[object, ...], tuple[RunEvent, int]] = {}  # by kind: the last event, and how many
        self._settled: events.ItemsSettled | None = None

    def take(self, event: RunEvent, now: float) -> list[tuple[int, str]]:
        """Return the lines to write after this event, with their levels. `now`: seconds, always on one clock."""
        lines = self.due(now)
        if self._since is None:
            self._since = now
        match event:
            case events.SourceRead(complete=False):
                return lines
            case events.ItemsSettled():
                self._settled = event if self._settled is None else self._settled + event
                return lines
            case events.DeliveryBegan() | events.RunHeld() | events.RunWindowClosed() | events.RunEnded():
                lines += self.rest()  # so that the log says how far the run had come
            case events.StateSeen():
                pass
            case _:
                lines += self._states_before(event)
        kind = _kind(event)
        let_through = self._lines.get(kind, 0)
        if let_through < (1 if isinstance(event, events.StateSeen) else AT_ONCE):
            self._lines[kind] = let_through + 1
            lines.append((level_of(event), line_of(event)))
        else:
            self._held_back[kind] = (event, self._held_back.get(kind, (event, 0))[1] + 1)
        return lines

    def due(self, now: float) -> list[tuple[int, str]]:
        """Return the lines that were held back, if their period is over."""
        if self._since is None or now - self._since < PERIOD:
            return []
        return self.rest()

    def _states_before(self, event: RunEvent) -> list[tuple[int, str]]:
        """Return the states of the event's endpoint that were held back: they were seen before it happened."""
        endpoint = getattr(event, "endpoint", None)
        before = [kind for kind in self._held_back if kind[:2] == (events.StateSeen, endpoint)]
        return [_repeated(*self._held_back.pop(kind)) for kind in before]

    def rest(self) -> list[tuple[int, str]]:
        """Return the lines that were held back, and begin a new period."""
        lines = [_repeated(last, times) for last, times in self._held_back.values()]
        if self._settled is not None:
            lines.append((logging.INFO, line_of(self._settled)))
        self._since, self._settled = None, None
        self._lines.clear()
        self._held_back.clear()
        return lines


def _repeated(last: RunEvent, times: int) -> tuple[int, str]:
    return level_of(last), f"{line_of(last)} repeated={times}"


def _kind(event: RunEvent) -> tuple[object, ...]:
    """Return a key that is equal for events that one line and a count can stand for."""
    match event:
        case events.AttemptFailed():
            return type(event), event.endpoint, event.kind, event.status, event.retry_in is None
        case events.StateSeen():
            return type(event), event.endpoint, event.state, event.detail
        case _:
            return type(event), getattr(event, "endpoint", None)
