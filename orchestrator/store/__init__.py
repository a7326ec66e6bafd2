"""FLOOR 3: the ledger, the only memory. The only place that speaks SQL."""

from orchestrator.store.seen import Seen
from orchestrator.store.store import Store

__all__ = ["Seen", "Store"]
