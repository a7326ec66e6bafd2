"""What `plan` says of the asks of a rollout that is new, was stopped, or was edited."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.engine.progress import Progress
from orchestrator.engine.run.plan import AsksToMake, forecast
from orchestrator.engine.run.run_job import run_job
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.engine.stop import Stop
from tests.engine.rollouts.rollout_jobs import ask_rows, rollout_job
from tests.engine.scripted import Scripted, outputs, run
from tests.unguarded import UNGUARDED

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator import Ask, Job
    from orchestrator.store import Store

TEXTS = [f"text {number}" for number in range(100)]  # more than are replayed at a time


async def drafted(row: dict[str, str], ask: Ask) -> object:
    draft = await ask(row["text"], step="draft")
    return await ask(f"judge {draft}")


async def judged(row: dict[str, str], ask: Ask) -> object:
    draft = await ask(row["text"], step="draft")
    asked = [ask.soon(f"judge again {draft} {number}") for number in range(3)]
    return [await one for one in asked]


async def asks_of(job: Job, store: Store, *, reuse: tuple[str, ...] = ()) -> AsksToMake | None:
    return (await forecast(RunRequest(job, reuse=reuse), store)).asks


async def test_asks_of_new_rows_are_at_least_one_for_each(store: Store, tmp_path: Path) -> None:
    job = rollout_job(TEXTS, drafted, Scripted(), tmp_path)
    assert await asks_of(job, store) == AsksToMake(0, 100)
    await run(rollout_job(["other"], judged, Scripted(), tmp_path), store)
    assert await asks_of(job, store) == AsksToMake(0, 100)


async def test_an_edited_rollout_keeps_its_answers_up_to_where_it_differs(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted()
    await run(rollout_job(TEXTS, drafted, endpoint, tmp_path), store)
    assert await asks_of(rollout_job(TEXTS, drafted, endpoint, tmp_path), store) == AsksToMake(0, 0)
    edited = rollout_job([*TEXTS, "new"], judged, endpoint, tmp_path)
    found = await asks_of(edited, store)
    assert found == AsksToMake(100, 301)
    assert str(found) == "asks: 100 answered already, at least 301 to make"
    before = len(endpoint.asked)
    await run(edited, store)
    assert len(endpoint.asked) == before + 304  # the new row's draft led to three more


async def test_a_renamed_and_edited_rollout_takes_over_the_asks_of_its_old_name(store: Store, tmp_path: Path) -> None:
    refusal = RequestFailed(FailureKind.REJECTED, "no", status=400)
    endpoint = Scripted(fails_with=lambda texts: refusal if texts == ["bad"] else None)
    await run(rollout_job(["a", "b", "bad"], drafted, endpoint, tmp_path), store)
    same = rollout_job(["a", "b", "new"], drafted, endpoint, tmp_path, name="same")
    assert await asks_of(same, store) == AsksToMake(0, 3)
    assert await asks_of(same, store, reuse=("rollouts",)) == AsksToMake(0, 1)  # whole items are taken over as well
    edited = rollout_job(["a", "b", "bad"], judged, endpoint, tmp_path, name="edited")
    hint = "job rollouts has answers to asks of these rows: `--reuse rollouts`"
    assert (await forecast(RunRequest(edited), store)).hints == [hint]
    assert (await forecast(RunRequest(edited, reuse=("rollouts",)), store)).hints == []
    other = rollout_job(["other", "texts", "bad"], judged, endpoint, tmp_path, name="other")
    assert (await forecast(RunRequest(other), store)).hints == []
    assert await asks_of(edited, store, reuse=("rollouts",)) == AsksToMake(2, 7)
    before = len(endpoint.asked)
    await run_job(RunRequest(edited, reuse=("rollouts",)), store, Progress(), Stop(), UNGUARDED)
    assert len(endpoint.asked) == before + 7
    drafts = [(one.item_id, one.answer, one.attempts) for one in await ask_rows(store, "edited") if one.step]
    assert drafts == [("i0", "A", 0), ("i1", "B", 0), ("i2", None, 1)]
    assert list(outputs(edited)) == ["i0", "i1"]
    assert await asks_of(edited, store) == AsksToMake(0, 0)


async def test_items_that_are_asked_again_count_and_discarded_ones_do_not(store: Store, tmp_path: Path) -> None:
    refusal = RequestFailed(FailureKind.REJECTED, "no", status=400)
    endpoint = Scripted(
        fails_with=lambda texts: refusal if any("JUDGE" in text.upper() for text in texts[:1]) else None
    )
    job = rollout_job(["a"], drafted, endpoint, tmp_path)
    await run(job, store)
    assert await asks_of(job, store) == AsksToMake(0, 0)
