"""A task group that raises its first failure itself, not wrapped in an exception group."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from orchestrator.domain.errors import PauseUnconfirmed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import TaskGroup


@asynccontextmanager
async def task_group() -> AsyncIterator[TaskGroup]:
    """Like `anyio.create_task_group`, but raises the first failure, since the others are its consequences.

    The notes of the others are added to it, and any `PauseUnconfirmed`, since that endpoint may still cost money.
    """
    try:
        async with anyio.create_task_group() as group:
            yield group
    except BaseExceptionGroup as failures:
        first, *others = _leaves(failures)
        for other in others:
            if isinstance(other, PauseUnconfirmed):
                first.add_note(str(other))
            for note in getattr(other, "__notes__", ()):
                first.add_note(note)
        raise first from first.__cause__


def _leaves(failure: BaseException) -> list[BaseException]:
    if not isinstance(failure, BaseExceptionGroup):
        return [failure]
    return [leaf for part in failure.exceptions for leaf in _leaves(part)]
