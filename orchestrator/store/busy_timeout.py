"""How long a write waits for the writes of other processes.

A write waits for other processes' writes for `busy_seconds`, half a second of SQLite's own waiting at a time,
so that a stop can end the wait: a locked ledger must not keep an endpoint awake.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from orchestrator.store.sqlite import DRIVER, WAL

if TYPE_CHECKING:
    from collections.abc import Callable

_SAID_AFTER = 2.0  # seconds of waiting after which `say_who` is called
_AT_A_TIME = 0.5  # seconds for which SQLite itself waits; that cannot be cut short
_MOMENT = 1.0  # seconds that a write waits after `end_in`: longer than any write of ours takes


class BusyTimeout:
    """The seconds that each write may wait. `end_in` shortens them, also for writes that are already waiting.

    `say_who` is called, in any thread, once a write has waited for long.

    After one timeout, later writes fail fast until one succeeds, because an endpoint may be awake meanwhile.
    With a rollback journal SQLite waits in other places too. It then does all the waiting, which cannot be shortened.
    """

    def __init__(self, seconds: float, say_who: Callable[[], None] = lambda: None) -> None:
        self.at_a_time = min(seconds, _AT_A_TIME) if WAL else seconds
        self.seconds = seconds
        self._say_who = say_who
        self._end = math.inf
        self._in_vain = False

    def end_in(self, seconds: float) -> None:
        """The process ends then: writes that still wait give up, and later ones wait for a second at most."""
        self._end = min(self._end, time.monotonic() + seconds)

    def insist(self, take: Callable[[], object]) -> None:
        """Call `take`, which takes the write lock, until it succeeds; raise SQLite's error after the timeout."""
        began = tried = time.monotonic()
        until = began + (0 if self._in_vain else self.seconds)
        reported = False
        while True:
            try:
                take()
            except DRIVER.OperationalError as error:
                now = time.monotonic()
                it_waited = now - tried >= self.at_a_time / 2  # otherwise SQLite did not try to wait, and nor do we
                if "locked" not in str(error) or not it_waited:
                    raise
                if now >= max(min(until, self._end), began + min(_MOMENT, self.seconds)):
                    self._in_vain = True
                    raise
                if now - began >= _SAID_AFTER and not reported:
                    self._say_who()
                    reported = True
                tried = now
            else:
                self._in_vain = False
                return
