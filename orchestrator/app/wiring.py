"""What the settings mean for every run: the guard, the day's budget, and hooks for failures."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from orchestrator.config import FailureWebhook
from orchestrator.domain.budget import Budget
from orchestrator.domain.errors import UsageError
from orchestrator.endpoints import endpoint_from
from orchestrator.engine.run.execution import Safety
from orchestrator.guard import guarded
from orchestrator.hooks.command import CommandHook
from orchestrator.hooks.webhook import Webhook

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.config import Settings
    from orchestrator.ports import Hook


def safety_of(settings: Settings, ledger: Path) -> Safety:
    """Return how runs on this ledger are guarded, and what they may cost in a day."""
    day = settings.budget
    guard = partial(guarded, str(ledger), settings.options)
    return Safety(guard, endpoint_from, Budget(day.max_cost_per_day, day.max_awake_per_day))


def failure_hooks(settings: Settings) -> tuple[Hook, ...]:
    """Return the hooks for failures of jobs that have none. Raises `UsageError` if the setting is not valid."""
    try:
        match settings.serve.on_failure:
            case FailureWebhook(url=url, secret_env=secret_env):
                return (Webhook(url, secret_env=secret_env),)
            case ():
                return ()
            case argv:
                return (CommandHook(argv),)
    except ValueError as error:
        raise UsageError(f"[serve] on_failure: {error}") from error
