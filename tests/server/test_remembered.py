"""Figures that take long: computed in the background, once at a time, and never in the way of a page."""

from __future__ import annotations

import anyio
import pytest

from orchestrator.domain.errors import UsageError
from orchestrator.server.remembered import Remembered


async def test_a_quick_figure_is_computed_each_time() -> None:
    made = iter(range(3))

    async def compute() -> int:
        return next(made)

    async with anyio.create_task_group() as tasks:
        remembered = Remembered(tasks)
        for expected in range(3):
            figure = await remembered.get("a", compute)
            assert figure is not None
            assert figure.value == expected


async def test_a_slow_figure_is_none_at_first_and_computed_once_however_many_ask() -> None:
    begun, release = list[int](), anyio.Event()

    async def compute() -> str:
        begun.append(1)
        await release.wait()
        return "done"

    async with anyio.create_task_group() as tasks:
        remembered = Remembered(tasks)
        assert [await remembered.get("a", compute) for _ in range(3)] == [None, None, None]
        release.set()
        while (figure := await remembered.get("a", compute)) is None:
            await anyio.lowlevel.checkpoint()
        assert (figure.value, len(begun)) == ("done", 1)
        again = await remembered.get("a", compute)
        assert again == figure  # it took long, so it is not computed again at once
        tasks.cancel_scope.cancel()


async def test_a_failure_is_raised_where_the_figure_is_asked_for_and_forgotten() -> None:
    failures = [UsageError("no")]

    async def compute() -> str:
        if failures:
            raise failures.pop()
        return "done"

    async with anyio.create_task_group() as tasks:
        remembered = Remembered(tasks)
        with pytest.raises(UsageError, match="no"):
            await remembered.get("a", compute)
        figure = await remembered.get("a", compute)
        assert figure is not None
        assert figure.value == "done"
