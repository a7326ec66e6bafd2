"""The options that every command takes, before its name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.config import Settings


@dataclass(frozen=True, slots=True)
class Globals:
    """The options that every command takes."""

    db: str | None
    config: Path | None
    verbose: int

    def settings(self) -> Settings:
        """Return the settings from options, environment and settings file together."""
        from orchestrator.config import load_settings

        return load_settings(self.config, self.db)

    def pinned(self) -> Globals:
        """Return these options with an absolute path to the ledger, so that changing folders does not matter."""
        from orchestrator.store.database import ledger_path

        return replace(self, db=str(ledger_path(self.settings().ledger)))
