"""events: passes what happens on to every listener."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.engine.progress import Progress

if TYPE_CHECKING:
    from orchestrator.domain.events import RunEvent
    from orchestrator.ports import EventListener


class Events:
    """Several listeners as one, which is passed down. `progress`: the first of them, which the engine reads, too."""

    def __init__(self, progress: Progress | None = None, *listeners: EventListener) -> None:
        self.progress = progress or Progress()
        self._listeners = (self.progress, *listeners)

    def emit(self, event: RunEvent) -> None:
        """Tell every listener."""
        for listener in self._listeners:
            listener.emit(event)


UNHEARD = Events()
