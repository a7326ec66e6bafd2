"""Asynchronous batch inference: the names that job files and scripts import."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.words import words

if TYPE_CHECKING:
    from orchestrator.api.connection import arun, connect, run
    from orchestrator.api.result import Result
    from orchestrator.api.run_summary import RunSummary
    from orchestrator.domain.errors import RequestFailed
    from orchestrator.domain.policy import Backoff, Policy
    from orchestrator.domain.schedule import Cron
    from orchestrator.hooks.webhook import Webhook
    from orchestrator.job import Job, Weighted
    from orchestrator.rollout import Ask, Conversation
    from orchestrator.version import __version__

# Imported on first use, also because the command imports this package before it has set up its handling of Ctrl-C.
if not TYPE_CHECKING:  # with `__getattr__`, a type checker would accept any name
    __getattr__, __dir__ = words(
        __name__,
        {
            "Ask": "orchestrator.rollout",
            "Backoff": "orchestrator.domain.policy",
            "Conversation": "orchestrator.rollout",
            "Cron": "orchestrator.domain.schedule",
            "Job": "orchestrator.job",
            "Policy": "orchestrator.domain.policy",
            "RequestFailed": "orchestrator.domain.errors",
            "Result": "orchestrator.api.result",
            "RunSummary": "orchestrator.api.run_summary",
            "Webhook": "orchestrator.hooks.webhook",
            "Weighted": "orchestrator.job",
            "arun": "orchestrator.api.connection",
            "connect": "orchestrator.api.connection",
            "run": "orchestrator.api.connection",
            "__version__": "orchestrator.version",
        },
    )

__all__ = [
    "Ask",
    "Backoff",
    "Conversation",
    "Cron",
    "Job",
    "Policy",
    "RequestFailed",
    "Result",
    "RunSummary",
    "Webhook",
    "Weighted",
    "__version__",
    "arun",
    "connect",
    "run",
]
