"""Meter: the share of the last seconds in which the model computed, and how many items it answered."""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WINDOW = 10.0  # seconds


class Meter:
    """Written by the model's thread and read by another. `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun = clock()
        self._since: float | None = None  # when the call in progress began
        self._calls: deque[tuple[float, float, int]] = deque()  # from, to, items
        self._lock = threading.Lock()

    @contextmanager
    def computing(self, items: int) -> Iterator[None]:
        """While the block lasts, the model computes the answers to this many items."""
        since = self._clock()
        with self._lock:
            self._since = since
        try:
            yield
        finally:
            with self._lock:
                self._calls.append((since, self._clock(), items))
                self._since = None
                self._forget(self._clock())

    def read(self) -> tuple[float, float]:
        """Return the busy share, from 0 to 1, and items per second."""
        with self._lock:
            now = self._clock()
            self._forget(now)
            spans = [(since, until) for since, until, _ in self._calls]
            spans += [] if self._since is None else [(self._since, now)]
            items = sum(count for _, _, count in self._calls)
        begun = max(self._begun, now - WINDOW)
        window = now - begun
        if window <= 0:
            return 0.0, 0.0
        return sum(until - max(since, begun) for since, until in spans) / window, items / window

    def _forget(self, now: float) -> None:
        while self._calls and self._calls[0][1] <= now - WINDOW:
            self._calls.popleft()
