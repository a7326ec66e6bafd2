"""What the ledger says of the asks of an item, and of what runs have asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.domain.ask_totals import AskTotal
from orchestrator.domain.run import Tokens
from tests.asks import Asked, write_asks, write_totals
from tests.failed_runs import run_with_failures

if TYPE_CHECKING:
    from orchestrator.store import Store

BUSY = ["unavailable", 503, "busy", 0.5, 990.0, 995.0]


async def test_the_asks_of_an_item_come_in_the_order_of_its_rollout(store: Store) -> None:
    run = await run_with_failures(store)
    await write_asks(store, run.id, Asked("good 1", 2, {"name": "look_up"}, endpoint=None, answer={"n": 1}))
    await write_asks(
        store, run.id, Asked("good 1", 1, "hello", step="draft", answer="hi", tokens=(5, 2), notes="cut empty")
    )
    await write_asks(store, run.id, Asked("good 1", 3, "late", outcome=None, failures=[BUSY]))
    await write_asks(store, run.id, Asked("good 2", 1, "other", answer="other"))
    first, second, third = await store.transcripts.of(run.id, "good 1")
    assert first == {
        "number": 1,
        "endpoint": "writer",
        "step": "draft",
        "request": "hello",
        "outcome": "completed",
        "answer": "hi",
        "attempts": 1,
        "seconds": 0.25,
        "at": 1001.0,
        "tokens_in": 5,
        "tokens_out": 2,
        "notes": ["cut", "empty"],
        "failures": [],
    }
    assert (second["endpoint"], second["request"], second["answer"]) == (None, {"name": "look_up"}, {"n": 1})
    assert (third["outcome"], third["answer"]) == (None, None)
    assert third["failures"] == [
        {"kind": "unavailable", "status": 503, "message": "busy", "seconds": 0.5, "at": 990.0, "available_at": 995.0}
    ]


async def test_totals_of_several_runs_are_read_at_once_with_functions_last(store: Store) -> None:
    runs = [(await run_with_failures(store, version=version)).id for version in "12"]
    await write_totals(store, runs[0], {("", ""): (1, 0, 0, None, None, 0.5), ("writer", "a"): (2, 1, 0, 3, 4, 0.5)})
    await write_totals(store, runs[1], {("judge", ""): (1, 0, 9, 0, 0, 2.5)})
    assert await store.transcripts.totals(runs) == {
        runs[0]: [AskTotal("writer", "a", 2, 1, 0, 3, 4, 0.5), AskTotal("", "", 1, 0, 0, None, None, 0.5)],
        runs[1]: [AskTotal("judge", "", 1, 0, 9, 0, 0, 2.5)],
    }
    assert await store.transcripts.totals([]) == {}
    assert [await store.views.tokens(run) for run in runs] == [Tokens(3, 4), Tokens()]
