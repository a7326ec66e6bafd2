"""Events: pass events on to every listener."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.engine.progress import Progress

if TYPE_CHECKING:
    from orchestrator.domain.events import RunEvent
    from orchestrator.ports import EventListener


class Events:
    """Several listeners as one. `progress` is the first of them, which the engine also reads."""

    def __init__(self, progress: Progress | None = None, *listeners: EventListener) -> None:
        self.progress = progress or Progress()
        self._listeners = (self.progress, *listeners)

    def emit(self, event: RunEvent) -> None:
        """Pass the event to every listener."""
        for listener in self._listeners:
            listener.emit(event)


UNHEARD = Events()
