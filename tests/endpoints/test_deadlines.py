from __future__ import annotations

import asyncio

import anyio
import pytest

from orchestrator.endpoints.deadlines import Deadlines


async def test_only_requests_that_take_too_long_time_out() -> None:
    deadlines, ended = Deadlines(0.1), list[str]()

    async def wait(name: str, seconds: float) -> None:
        try:
            with deadlines:
                await anyio.sleep(seconds)
            ended.append(name)
        except TimeoutError:
            ended.append(f"{name} timed out")

    async with anyio.create_task_group() as group:
        group.start_soon(wait, "long", 30.0)
        group.start_soon(wait, "short", 0.0)
        await anyio.sleep(0.05)
        group.start_soon(wait, "another long one", 30.0)
    assert ended == ["short", "long timed out", "another long one timed out"]
    await wait("later", 30.0)
    assert ended[-1] == "later timed out"


async def test_a_cancellation_from_outside_remains_a_cancellation() -> None:
    deadlines = Deadlines(30.0)
    with anyio.CancelScope() as scope:
        with deadlines:
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_request_that_fails_for_another_reason_keeps_its_failure() -> None:
    with pytest.raises(ValueError, match="its own"), Deadlines(30.0):
        raise ValueError("its own")
