"""The tasks in which rollouts run: unlike those of a task group, one that cannot be cancelled can be left behind."""

from __future__ import annotations

import asyncio
import ctypes
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio

from orchestrator.engine.change import Change

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from orchestrator.engine.rollouts.open_rollout import OpenRollout

_LONGEST = 10.0  # seconds that a function has to end once it is cancelled
_logger = logging.getLogger(__name__)


class Functions:
    """The rollouts whose functions were called and have not returned, each with its task.

    A task group could not end before a function that awaits a thread, or a task that catches everything. `ending`: all
    of them are cancelled, and no other may begin.
    """

    def __init__(self, leave: Callable[[OpenRollout], None]) -> None:
        self.ending = False
        self._leave = leave
        self._running: dict[asyncio.Task[None], OpenRollout] = {}
        self._mistake: BaseException | None = None
        self._failed = anyio.Event()  # set once there is one
        self._changed = Change()

    def __len__(self) -> int:
        return len(self._running)

    def __iter__(self) -> Iterator[OpenRollout]:
        return iter(self._running.values())

    def begin(self, rollout: OpenRollout, running: Coroutine[Any, Any, None]) -> None:
        """Run a rollout."""
        rollout.task = task = asyncio.get_running_loop().create_task(running)
        self._running[task] = rollout
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        if not task.cancelled() and (mistake := task.exception()) is not None:
            self._mistake = mistake
            self._failed.set()
        self._changed.notify()

    async def keep(self) -> None:
        """Leave behind those that do not end although they were cancelled. Raises what fails beside them."""
        late: set[OpenRollout] = set()
        while True:
            with anyio.move_on_after(_LONGEST):
                await self._failed.wait()
            if self._mistake is not None:
                raise self._mistake
            over = {rollout for rollout in self if rollout.over}
            self._leave_behind(over & late)
            late = over

    @asynccontextmanager
    async def ended(self) -> AsyncIterator[None]:
        """When the block ends, cancel those that are left, and wait for them; leave those behind that go on."""
        try:
            yield
        finally:
            self.ending = True
            for rollout in self:
                rollout.cancel()
            with anyio.move_on_after(_LONGEST, shield=True):
                while self._running:
                    await self._changed.next()
            self._leave_behind(set(self))

    def _leave_behind(self, late: set[OpenRollout]) -> None:
        for rollout in late:
            task = rollout.task
            del self._running[task]
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(task))  # collected, even at exit, its code may run for ever
            asyncio.tasks._unregister_task(task)  # noqa: SLF001 - documented for event loops of others
            _logger.warning(
                "the rollout of item %s goes on although it was cancelled, so it was left behind: it awaits a thread "
                "or a task that cannot be cancelled, or catches everything (`except:`, `except BaseException`)",
                rollout.item.id,
            )
            self._leave(rollout)
