"""What commands print of a rollout: the transcript of an item, and what was asked by endpoint."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio

from orchestrator.report.listings import note_on_asks
from orchestrator.store import Store
from tests.asks import Asked, write_asks, write_totals
from tests.failed_runs import run_with_failures

if TYPE_CHECKING:
    from tests.commands import Workplace

BUSY = ["unavailable", 503, "busy", 0.5, 990.0, 995.0]


async def _write(path: str) -> None:
    async with Store.open(path) as store:
        run = (await run_with_failures(store)).id
        await write_asks(
            store, run, Asked("good 1", 1, {"inputs": "hi"}, step="draft", answer="hello\n", failures=[BUSY])
        )
        await write_asks(
            store, run, Asked("good 1", 2, "q", endpoint="judge", outcome="discarded", failures=[BUSY, BUSY])
        )
        await write_asks(store, run, Asked("good 1", 3, {"name": "look_up"}, endpoint=None, step="look_up", answer=1))
        await write_asks(store, run, Asked("good 1", 4, "q", outcome=None), Asked("good 1", 4, "p", outcome=None))
        await write_totals(store, run, {("writer", "draft"): (2, 1, 0, 3, 4, 0.5)})


def test_an_item_is_shown_with_all_that_its_rollout_asked(workplace: Workplace) -> None:
    anyio.run(partial(_write, str(workplace.ledger)))
    shown = [line.rstrip() for line in workplace.run("item", "1", "good 1").out.splitlines()]
    at = shown.index("ask 1 of writer (draft): completed after 0.250 s, attempt 2")
    assert shown[at:] == [
        "ask 1 of writer (draft): completed after 0.250 s, attempt 2",
        '  request: {"inputs":"hi"}',
        "  failed after 0.500 s unavailable 503 busy",
        "  answer: hello\\n",
        "ask 2 of judge: discarded after 0.250 s, attempt 2",
        "  request: q",
        "  failed after 0.500 s unavailable 503 busy",
        "  failed after 0.500 s unavailable 503 busy",
        "ask 3, call of look_up: completed after 0.250 s",
        '  request: {"name":"look_up"}',
        "  answer: 1",
        "ask 4 of writer: unanswered after 0.250 s",
        "  request: q",
        "ask 4 of writer: unanswered after 0.250 s",
        "  request: p",
        note_on_asks([{"number": 4}, {"number": 4}]),
        "attempt 1: completed after 0.100 s",
    ]
    found = workplace.run("item", "1", "good 1", "--json").json
    assert [ask["number"] for ask in found["asks"]] == [1, 2, 3, 4, 4]
    assert workplace.run("item", "1", "busy", "--json").json["asks"] == []


def test_status_and_manifest_count_asks_by_endpoint(workplace: Workplace) -> None:
    anyio.run(partial(_write, str(workplace.ledger)))
    line = "asked writer: 2 asks, 1 discarded, 3 tokens in, 4 tokens out, 0.5 s"
    assert line in workplace.run("status").out.splitlines()
    assert workplace.run("status", "--json").json["asks"][0]["asks"] == 2
    manifest = workplace.run("export", "1", "-o", "out.jsonl", "--json").json
    assert manifest["asks"] == {"writer": {"asks": 2, "discarded": 1}}
