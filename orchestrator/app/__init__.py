"""The application: the one place that puts ledger, settings, guard, budgets, endpoints and hooks together.

`application` has `open_app` and `App`, whose methods are what front ends can do. `wiring` says what the settings mean
for every run. `duties` is what a daemon does besides runs, `export` writes a run's results to a file, and `lost_debts`
pays what ledgers owed that are gone. `upkeep` works on a ledger that may be missing, in use or damaged.

It prints nothing and handles no signals, which is left to front ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.words import words

if TYPE_CHECKING:
    from orchestrator.app.application import App, open_app
    from orchestrator.app.upkeep import compact, explained, sweep_ledger

if not TYPE_CHECKING:  # with `__getattr__`, a type checker would accept any name
    __getattr__, __dir__ = words(
        __name__,
        {
            "App": "orchestrator.app.application",
            "compact": "orchestrator.app.upkeep",
            "explained": "orchestrator.app.upkeep",
            "open_app": "orchestrator.app.application",
            "sweep_ledger": "orchestrator.app.upkeep",
        },
    )

__all__ = ["App", "compact", "explained", "open_app", "sweep_ledger"]
