"""Commits: what is committed together, and when."""

from __future__ import annotations

import anyio

from orchestrator.domain.attempt import Completed
from orchestrator.domain.item import Item, Lease
from orchestrator.engine.asking.commits import Commits
from orchestrator.engine.progress import Progress
from orchestrator.store.items import Settlement


def settlement(key: int) -> Settlement:
    return Settlement(Item(key, f"i{key}", b"{}", 1, Lease(1, 1)), Completed("1"), 0.0)


async def test_what_is_handed_in_is_committed_although_nobody_waits_for_it() -> None:
    written: list[list[int]] = []
    done = anyio.Event()

    async def write(settlements: list[Settlement]) -> None:
        written.append([one.item.key for one in settlements])
        if sum(map(len, written)) == 3:
            done.set()

    commits = Commits(write, lambda: None, Progress())
    async with anyio.create_task_group() as group:
        group.start_soon(commits.keep_committing)
        commits.hand_in(settlement(1))
        commits.hand_in(settlement(2))
        await commits.add([settlement(3)])
        await done.wait()
        group.cancel_scope.cancel()
    assert written == [[3, 1, 2]]  # together, and no commit is made for each


async def test_what_was_handed_in_before_a_run_is_cut_short_is_committed() -> None:
    written: list[int] = []

    async def write(settlements: list[Settlement]) -> None:
        written.extend(one.item.key for one in settlements)

    commits = Commits(write, lambda: None, Progress())
    async with anyio.create_task_group() as group:
        group.start_soon(commits.commit_the_rest)
        commits.hand_in(settlement(1))
        commits.closed.set()
    assert written == [1]
