from __future__ import annotations

import math

import anyio
import pytest

from orchestrator.engine.stop import Stop
from orchestrator.engine.tasks import task_group


async def ends(stop: Stop, ended: list[str], name: str = "it") -> None:
    """Record which of the blocks that depend on this have ended."""

    async def new() -> None:
        with stop.while_running():
            await anyio.sleep_forever()
        ended.append(f"{name} begins nothing new")

    async def old() -> None:
        with stop.until_deadline():
            await anyio.sleep_forever()
        ended.append(f"{name} is cut off")

    async with task_group() as group:
        group.start_soon(new)
        group.start_soon(old)


async def test_draining_ends_new_work_and_aborting_ends_work_in_flight() -> None:
    stop, ended = Stop(), list[str]()
    async with task_group() as group:
        group.start_soon(ends, stop, ended)
        await anyio.wait_all_tasks_blocked()
        assert (stop.requested, stop.aborting, ended) == (False, False, [])
        stop.drain()
        await anyio.wait_all_tasks_blocked()
        assert (stop.requested, stop.aborting, ended) == (True, False, ["it begins nothing new"])
        stop.abort()
        await anyio.wait_all_tasks_blocked()
        assert (stop.aborting, ended) == (True, ["it begins nothing new", "it is cut off"])


async def test_the_deadline_aborts_and_later_requests_only_shorten_it() -> None:
    stop, ended = Stop(), list[str]()
    async with task_group() as group:
        group.start_soon(ends, stop, ended)
        await anyio.wait_all_tasks_blocked()
        stop.drain(0.02)
        near = stop.deadline
        stop.drain(60.0)
        stop.drain()
        assert stop.deadline == near
    assert ended == ["it begins nothing new", "it is cut off"]
    assert stop.aborting


async def test_a_child_stops_no_later_than_its_parent_and_does_not_stop_it() -> None:
    parent, ended = Stop(), list[str]()
    child, sibling = parent.child(), parent.child()
    grandchild = child.child()
    async with task_group() as group:
        group.start_soon(ends, grandchild, ended, "the grandchild")
        await anyio.wait_all_tasks_blocked()
        child.drain()
        await anyio.wait_all_tasks_blocked()
        assert ended == ["the grandchild begins nothing new"]
        assert [one.requested for one in (parent, sibling, child)] == [False, False, True]
        parent.drain(60.0)
        assert [one.requested for one in (parent, sibling, child)] == [True, True, True]
        assert grandchild.deadline == child.deadline == parent.deadline < math.inf
        parent.abort()
    assert ended == ["the grandchild begins nothing new", "the grandchild is cut off"]


async def test_a_stop_reaches_nested_scopes_even_if_those_between_are_not_referenced() -> None:
    run = Stop()
    narrow = run.child().child()
    run.drain()
    assert narrow.requested


async def test_work_that_begins_after_a_stop_ends_at_once() -> None:
    stop, ended = Stop(), list[str]()
    stop.abort()
    await ends(stop.child(), ended)
    assert sorted(ended) == ["it begins nothing new", "it is cut off"]
    await stop.sleep(math.inf)
    await stop.wait()


async def test_a_condition_can_start_draining() -> None:
    stop, happened = Stop(), anyio.Event()
    async with task_group() as group:
        group.start_soon(stop.drain_after, happened.wait, 60.0)
        await anyio.wait_all_tasks_blocked()
        assert stop.deadline == math.inf
        happened.set()
    assert stop.requested
    assert stop.deadline == pytest.approx(anyio.current_time() + 60.0, abs=30.0)
