"""Machine: how many requests at once this machine can hold; the user is told once if that is fewer than wanted."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from anyio import to_thread

from orchestrator import descriptors
from orchestrator.domain.errors import NoRoom, RunStopped
from orchestrator.domain.room import Room

if TYPE_CHECKING:
    from orchestrator.engine.progress import Presence
    from orchestrator.engine.stop import Stop

_BREATH = 1.0  # seconds until the next try, if no request in flight will free a connection
_logger = logging.getLogger(__name__)


class Machine:
    """The connections of this machine. Kept for as long as a run uses an endpoint, across reconnections."""

    def __init__(self) -> None:
        self._room = Room()
        self._why = ""

    async def look(self) -> None:
        """Find out how many connections this process can open."""
        most = await to_thread.run_sync(descriptors.for_connections)
        if most is not None:
            self._room.ceiling = most
            self._why = f"this process may have {descriptors.limit()} open files (ulimit -n)"

    def allows(self, wanted: int, presence: Presence) -> int:
        """Return how many of the wanted requests at once are possible."""
        allowed = int(min(wanted, self._room.most))
        if allowed < wanted and not self._room.said:
            self._room.said = True
            _logger.warning("%s: %d requests at once, not %d: %s", presence.name, allowed, wanted, self._why)
        return allowed

    async def ran_out(self, lack: NoRoom, others: int, stop: Stop) -> None:
        """Record that a request got no connection beside `others`. Raises `RunStopped` if none works for long."""
        self._why = f"this machine has no room for more ({lack})"
        self._room.ran_out(others)
        if self._room.none:
            raise RunStopped(
                f"this machine has no room for a single connection ({lack}): close what takes its files and ports, "
                "then run the same command again to continue"
            )
        if not others:
            await stop.sleep(_BREATH)

    def sufficed(self) -> bool:
        """Record that a request got a connection; return whether more may now be in flight than before."""
        return self._room.sufficed()
