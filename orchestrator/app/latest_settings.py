"""The settings as their file has them now, for what a long-lived daemon does not have to begin again for."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from anyio import to_thread

from orchestrator.domain.errors import UsageError
from orchestrator.endpoints.named import check_models

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.config import Settings


class LatestSettings:
    """Reads the file again whenever it has changed. If it is not valid then, the settings before stay in use."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._say = say
        self._seen = settings.stamp()
        self._one_at_a_time = Lock()

    async def now(self) -> Settings:
        """Return the settings as they are now."""
        return await to_thread.run_sync(self._now)

    def _now(self) -> Settings:
        with self._one_at_a_time:
            if (stamp := self._settings.stamp()) != self._seen:
                self._seen = stamp
                self._read()
            return self._settings

    def _read(self) -> None:
        try:
            settings = self._settings.read_again()
            check_models(settings.endpoints)
        except UsageError as error:
            self._say(f"the settings have changed, and those before stay in use: {error}")
            return
        self._settings = settings
        self._say("the settings have changed: [endpoints] holds for new batches; all else once this is started again")
