"""Leaves a function behind that goes on however often it is cancelled, so that its run can go on and end."""

from __future__ import annotations

import asyncio
import ctypes
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    import anyio

    from orchestrator.engine.rollouts.open_rollout import OpenRollout

_MOST = 1000  # cancellations after which a function may go on: those of a loop without end follow one after the other
_logger = logging.getLogger(__name__)


class Leavable:
    """A rollout's function, awaited until it has ended, or has ignored too often that it is cancelled."""

    __slots__ = ("_all_rollouts", "_function", "_rollout")

    def __init__(
        self, function: Coroutine[Any, Any, Any], rollout: OpenRollout, all_rollouts: anyio.CancelScope
    ) -> None:
        self._function = function
        self._rollout = rollout
        self._all_rollouts = all_rollouts

    def __await__(self) -> Generator[Any, Any, Any]:
        """Return what the function returns. If it is left behind, its task is cancelled as if it had ended."""
        step: Callable[[Any], Any] = self._function.send
        value: Any = None
        ignored = 0
        while True:
            try:
                awaited = step(value)
            except StopIteration as end:
                return end.value
            try:
                value, step = (yield awaited), self._function.send
            except BaseException as failure:  # of what the function awaits, or it is cancelled
                if isinstance(failure, asyncio.CancelledError) and self._is_cancelled:
                    ignored += 1
                    if ignored > _MOST:
                        self._leave()
                        raise
                value, step = failure, self._function.throw

    @property
    def _is_cancelled(self) -> bool:
        """Whether the rollout is to end, and not only something of its own."""
        return self._rollout.scope.cancel_called or self._all_rollouts.cancel_called

    def _leave(self) -> None:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._function))  # collected, even at exit, it would run for ever
        _logger.warning(
            "the rollout of item %s goes on although it was cancelled %s times, so it was left behind: catch "
            "RequestFailed, not everything (`except:`, `except BaseException`)",
            self._rollout.item.id,
            f"{_MOST:,}",
        )
