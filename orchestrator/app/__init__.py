"""The application: the one place that puts ledger, settings, guard, budgets, endpoints and hooks together.

`application` has `open_app` and `App`, whose methods are what front ends can do. `wiring` says what the settings mean
for every run. `duties` is what a daemon does besides runs, `export` writes a run's results to a file, and `lost_debts`
pays what ledgers owed that are gone. `upkeep` works on a ledger that may be missing, in use or damaged.

It prints nothing and handles no signals, which is left to front ends.
"""

from orchestrator.app.application import App, open_app
from orchestrator.app.upkeep import compact, explained, sweep_ledger

__all__ = ["App", "compact", "explained", "open_app", "sweep_ledger"]
