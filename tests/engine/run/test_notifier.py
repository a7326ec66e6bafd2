from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import anyio
import orjson
import pytest

from orchestrator import Policy, Webhook
from orchestrator.domain.errors import EndpointRefused, RunStopped
from orchestrator.domain.notification import Event, NotificationFailed
from orchestrator.domain.run import RunState
from orchestrator.domain.terms import Terms
from orchestrator.engine.progress import Progress
from orchestrator.engine.run.run_job import run_job
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.engine.stop import Stop
from orchestrator.hooks.command import CommandHook
from tests.engine.scripted import QUICK, Scripted, job_of
from tests.unguarded import UNGUARDED

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator import Job
    from orchestrator.domain.notification import Notification
    from orchestrator.store import Store


@dataclass
class Listener:
    """A hook that records its notifications and the state at that time."""

    endpoint: Scripted | None = None
    fails: Exception | None = None
    told: list[Notification] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def describe(self) -> str:
        return "listener"

    async def notify(self, notification: Notification) -> None:
        self.told.append(notification)
        self.calls += self.endpoint.calls if self.endpoint else []
        if self.fails is not None:
            raise self.fails


async def go(job: Job, store: Store, progress: Progress | None = None, stop: Stop | None = None) -> None:
    await run_job(RunRequest(job), store, progress or Progress(), stop or Stop(), UNGUARDED)


async def kept(store: Store, run_id: int = 1) -> dict[str, object]:
    async with store.database.read() as connection:
        ((results,),) = await connection.execute("SELECT notification FROM run WHERE id = ?", (run_id,))
    found: dict[str, object] = orjson.loads(results)
    return found


async def test_hooks_are_notified_after_the_pause_with_the_report(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(terms=Terms("scripted", {"kind": "test"}, price_per_hour=3.6))
    listener, other = Listener(endpoint), Listener()
    texts = [f"text {number}" for number in range(40)] + ["poison"]
    job = replace(job_of(texts, endpoint, tmp_path), on_finish=listener, on_failure=other)
    await go(job, store)
    (notification,) = listener.told
    assert (notification.event, notification.run, notification.job, notification.state) == (
        Event.FINISHED,
        1,
        "scripted",
        "finished",
    )
    assert listener.calls == ["resume", "pause"]
    body = orjson.loads(notification.body)
    assert body["type"] == "run.finished"
    assert "41 items: 40 completed, 1 discarded" in body["text"]
    assert "scripted: read as paused" in body["text"]
    (run,) = body["runs"]
    assert (run["counts"]["completed"], run["failures"][0]["kind"], run["state"]) == (40, "rejected", "finished")
    assert body["owed"] == body["awake"] == []
    assert other.told == []
    assert (await kept(store))["owed"] == 0


async def test_a_failure_is_notified_once_with_its_reason(store: Store, tmp_path: Path) -> None:
    listener, other = Listener(), Listener()
    job = job_of(["a"], Scripted(fails=EndpointRefused("401: check the token")), tmp_path)
    with pytest.raises(EndpointRefused):
        await go(replace(job, on_finish=other, on_failure=listener), store)
    (notification,) = listener.told
    assert (notification.event, notification.state, other.told) == (Event.FAILED, "failed", [])
    assert "401: check the token" in orjson.loads(notification.body)["text"]


async def test_too_many_errors_are_notified_although_the_run_can_be_continued(store: Store, tmp_path: Path) -> None:
    listener = Listener()
    texts = [f"{'poison' if number % 3 else 'benign'} {number}" for number in range(1000)]
    job = job_of(texts, Scripted(), tmp_path, Policy(concurrency=4, max_error_rate=0.5))
    with pytest.raises(RunStopped):
        await go(replace(job, on_failure=listener), store)
    assert [notification.state for notification in listener.told] == ["stopped"]


async def test_a_run_stopped_by_the_user_notifies_no_hook(store: Store, tmp_path: Path) -> None:
    listener, stop, endpoint = Listener(), Stop(), Scripted(gate=anyio.Event())
    job = replace(job_of(["a", "b"], endpoint, tmp_path), on_finish=listener, on_failure=listener)
    async with anyio.create_task_group() as group:
        group.start_soon(_stop_when_asked, endpoint, stop)
        with pytest.raises(RunStopped):
            await go(replace(job, policy=Policy(concurrency=1, backoff=QUICK)), store, stop=stop)
    assert listener.told == []
    endpoint.gate = None
    await go(job, store)  # its end is notified once it continues
    assert [notification.event for notification in listener.told] == [Event.FINISHED]


async def _stop_when_asked(endpoint: Scripted, stop: Stop) -> None:
    while not endpoint.asked:
        await anyio.sleep(0.001)
    stop.drain()
    assert endpoint.gate is not None
    endpoint.gate.set()


@pytest.mark.parametrize("failure", [NotificationFailed("answered 503, 6 times"), KeyError("s3cret")])
async def test_a_failing_hook_changes_nothing_and_is_reported(store: Store, tmp_path: Path, failure: Exception) -> None:
    listener, progress = Listener(fails=failure), Progress()
    await go(replace(job_of(["a"], Scripted(), tmp_path), on_finish=listener), store, progress)
    assert (await store.runs.find("1")).state is RunState.FINISHED
    (trouble,) = progress.troubles
    assert trouble.startswith("run 1: could not notify listener: ")
    results = (await kept(store))["results"]
    assert isinstance(results, list)
    assert (results[0]["ok"], "s3cret" in str(results)) == (False, False)
    assert [one.ok for one in (await store.history.run(1)).notified] == [False]


async def test_an_end_that_was_not_notified_is_notified_by_the_next_run_of_the_job(
    store: Store, tmp_path: Path
) -> None:
    listener = Listener()
    await go(job_of(["a"], Scripted(), tmp_path), store)  # the process died at this point
    late = await store.notifications.owe(1)
    job = replace(job_of(["a", "b"], Scripted(), tmp_path), on_finish=listener)
    await go(job, store)
    assert [(notification.run, notification.id == late) for notification in listener.told] == [(1, True), (2, False)]
    await go(job, store)
    assert [notification.run for notification in listener.told] == [1, 2, 3]  # nothing is notified twice


def test_a_list_of_strings_is_one_command_and_any_other_list_is_several_hooks(tmp_path: Path) -> None:
    webhook, plain = Webhook("https://example.org/x"), job_of(["a"], Scripted(), tmp_path)
    assert replace(plain, on_finish=["notify", "--done"]).finish_hooks == (CommandHook(["notify", "--done"]),)
    several = replace(plain, on_failure=[webhook, ["notify"]]).failure_hooks
    assert several == (webhook, CommandHook(["notify"]))
    assert plain.finish_hooks == plain.failure_hooks == ()
    with pytest.raises(TypeError, match="neither a Webhook nor a command"):
        replace(plain, on_finish="notify")
