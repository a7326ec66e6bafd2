"""Change: whatever waits is woken once, by the next change."""

from __future__ import annotations

import anyio

from orchestrator.engine.change import Change
from tests.commands import DEADLINE


async def test_a_change_wakes_all_that_wait_and_no_later_ones() -> None:
    change, woken = Change(), list[str]()
    change.notify()  # nothing waits, so nothing is remembered

    async def wait(name: str) -> None:
        await change.next()
        woken.append(name)

    with anyio.fail_after(DEADLINE):
        async with anyio.create_task_group() as group:
            group.start_soon(wait, "one")
            group.start_soon(wait, "two")
            await anyio.wait_all_tasks_blocked()
            assert woken == []
            change.notify()
            group.start_soon(wait, "late")
            await anyio.wait_all_tasks_blocked()
            assert sorted(woken) == ["one", "two"]
            change.notify()
