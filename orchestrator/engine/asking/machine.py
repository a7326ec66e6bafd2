"""Machine: how many requests at once ours has room for; a person is told once where that is fewer than wanted."""

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

_BREATH = 1.0  # seconds until the next try, where nothing is in flight whose end makes room
_logger = logging.getLogger(__name__)


class Machine:
    """Kept for as long as a run uses an endpoint, over reconnections."""

    def __init__(self) -> None:
        self._room = Room()
        self._why = ""

    async def look(self) -> None:
        """See how many connections this process can open."""
        most = await to_thread.run_sync(descriptors.for_connections)
        if most is not None:
            self._room.ceiling = most
            self._why = f"this process may have {descriptors.limit()} open files (ulimit -n)"

    def allows(self, wanted: int, presence: Presence) -> int:
        """So many of the requests that are wanted at once."""
        allowed = int(min(wanted, self._room.most))
        if allowed < wanted and not self._room.said:
            self._room.said = True
            _logger.warning("%s: %d requests at once, not %d: %s", presence.name, allowed, wanted, self._why)
        return allowed

    async def ran_out(self, lack: NoRoom, others: int, stop: Stop) -> None:
        """A request found no room beside so many others. `RunStopped` where not even one does for a long time."""
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
        """A request found room; whether more may be in flight from now on than before."""
        return self._room.sufficed()
