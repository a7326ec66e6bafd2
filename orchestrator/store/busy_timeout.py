"""How long a write waits for those of other processes."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from sqlalchemy.exc import OperationalError

from orchestrator.store.sqlite import DRIVER, WAL

if TYPE_CHECKING:
    from collections.abc import Callable

_SAID_AFTER = 2.0  # seconds of waiting after which it is said who is waited for
_AT_A_TIME = 0.5  # seconds for which SQLite itself waits; that cannot be cut short
_MOMENT = 1.0  # seconds that a write waits in a hurry: longer than any write of ours takes


class BusyTimeout:
    """So many seconds a write; less once there is a hurry, also for those that wait already.

    `say_who` is called in a write that has to wait for long, in whichever thread that is.

    Who has waited in vain does not wait again until a write gets through: an endpoint may be awake meanwhile.
    With a rollback journal SQLite waits in other places too, so that it does all the waiting, and knows no hurry.
    """

    def __init__(self, seconds: float, say_who: Callable[[], None] = lambda: None) -> None:
        self.at_a_time = min(seconds, _AT_A_TIME) if WAL else seconds
        self.seconds = seconds
        self._say_who = say_who
        self._end = math.inf
        self._in_vain = False

    def end_in(self, seconds: float) -> None:
        """By then the process wants to end: whoever still waits gives up, and nobody waits for more than a moment."""
        self._end = min(self._end, time.monotonic() + seconds)

    def insist(self, take: Callable[[], object]) -> None:
        """Do what takes the write lock, as soon as the others let us; raises what SQLite says if it takes too long."""
        began = tried = time.monotonic()
        until = began + (0 if self._in_vain else self.seconds)
        said = False
        while True:
            try:
                take()
            except (OperationalError, DRIVER.OperationalError) as error:
                now = time.monotonic()
                it_waited = now - tried >= self.at_a_time / 2  # else it sees no sense in that, and nor do we
                if "locked" not in str(error) or not it_waited:
                    raise
                if now >= max(min(until, self._end), began + min(_MOMENT, self.seconds)):
                    self._in_vain = True
                    raise
                if now - began >= _SAID_AFTER and not said:
                    self._say_who()
                    said = True
                tried = now
            else:
                self._in_vain = False
                return
