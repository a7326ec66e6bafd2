"""Hooks: notified of how a run ended; one file per kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.words import words

if TYPE_CHECKING:
    from orchestrator.hooks.command import CommandHook
    from orchestrator.hooks.webhook import Webhook

if not TYPE_CHECKING:  # a type checker is to find out that a name does not exist
    __getattr__, __dir__ = words(
        __name__, {"CommandHook": "orchestrator.hooks.command", "Webhook": "orchestrator.hooks.webhook"}
    )

KINDS = {"command": "CommandHook", "webhook": "Webhook"}  # see orchestrator.kinds

__all__ = ["CommandHook", "Webhook"]
