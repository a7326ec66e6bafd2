"""Asynchronous batch inference: the words a job file imports."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.domain.backoff import Backoff
    from orchestrator.domain.policy import Policy
    from orchestrator.domain.schedule import Cron
    from orchestrator.hooks.webhook import Webhook
    from orchestrator.job import Job, Weighted

_HOMES = {
    "Backoff": "orchestrator.domain.backoff",
    "Cron": "orchestrator.domain.schedule",
    "Job": "orchestrator.job",
    "Policy": "orchestrator.domain.policy",
    "Webhook": "orchestrator.hooks.webhook",
    "Weighted": "orchestrator.job",
}


def __getattr__(name: str) -> object:
    """Import a word when it is used: the command imports this package before it can take Ctrl-C for what it is."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


__all__ = ["Backoff", "Cron", "Job", "Policy", "Webhook", "Weighted"]
