"""Asynchronous batch inference: the names that a job file imports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.words import words

if TYPE_CHECKING:
    from orchestrator.domain.policy import Backoff, Policy
    from orchestrator.domain.schedule import Cron
    from orchestrator.hooks.webhook import Webhook
    from orchestrator.job import Job, Weighted
    from orchestrator.version import __version__

# Imported on first use, also because the command imports this package before it has set up its handling of Ctrl-C.
if not TYPE_CHECKING:  # with `__getattr__`, a type checker would accept any name
    __getattr__ = words(
        __name__,
        {
            "Backoff": "orchestrator.domain.policy",
            "Cron": "orchestrator.domain.schedule",
            "Job": "orchestrator.job",
            "Policy": "orchestrator.domain.policy",
            "Webhook": "orchestrator.hooks.webhook",
            "Weighted": "orchestrator.job",
            "__version__": "orchestrator.version",
        },
    )

__all__ = ["Backoff", "Cron", "Job", "Policy", "Webhook", "Weighted", "__version__"]
