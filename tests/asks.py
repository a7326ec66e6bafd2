"""Asks in a ledger as rollouts leave them, written without running one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.store import Store

ROUTES = {"writer": ["acme/embed"], "judge": ["acme/judge"]}
_ASK = """
INSERT INTO ask (job_id, item_id, hash, nth, number, endpoint, step, request, outcome, answer, attempts, seconds, at,
                 tokens_in, tokens_out, notes, failures)
SELECT r.job_id, :item, randomblob(16), 0, :number, :endpoint, :step, :request, :outcome, :answer, :attempts, 0.25, :at,
       :tokens_in, :tokens_out, :notes, :failures FROM run r WHERE r.id = :run
"""
_TOTAL = """
INSERT INTO ask_total (run_id, endpoint, step, asks, discarded, retried, tokens_in, tokens_out, seconds)
VALUES (:run, :endpoint, :step, :asks, :discarded, :retried, :tokens_in, :tokens_out, :seconds)
"""


@dataclass(frozen=True)
class Asked:
    """An ask. `tokens`: in and out. `failures`: as the ledger has them."""

    item: str
    number: int
    request: object
    endpoint: str | None = "writer"
    step: str | None = None
    outcome: str | None = "completed"
    answer: object = None
    tokens: tuple[int | None, int | None] = (None, None)
    failures: Sequence[Sequence[object]] = ()
    notes: str | None = None
    at: float | None = None


async def write_asks(store: Store, run: int, *asks: Asked) -> None:
    """Write asks of items of a run."""
    async with store.database.write() as connection:
        for one in asks:
            values = {
                **{name: getattr(one, name) for name in ("item", "number", "endpoint", "step", "outcome", "notes")},
                "run": run,
                "request": orjson.dumps(one.request).decode(),
                "answer": orjson.dumps(one.answer).decode() if one.outcome == "completed" else None,
                "attempts": len(one.failures) + (one.outcome == "completed"),
                "at": 1000.0 + one.number if one.at is None else one.at,
                "tokens_in": one.tokens[0],
                "tokens_out": one.tokens[1],
                "failures": orjson.dumps(one.failures).decode() if one.failures else None,
            }
            await connection.execute(_ASK, values)


async def write_totals(store: Store, run: int, totals: Mapping[tuple[str, str], Sequence[float | None]]) -> None:
    """Write what a run has asked by endpoint and step: asks, discarded, retried, tokens in and out, seconds."""
    async with store.database.write() as connection:
        for (endpoint, step), (asks, discarded, retried, tokens_in, tokens_out, seconds) in totals.items():
            numbers = {"asks": asks, "discarded": discarded, "retried": retried, "seconds": seconds}
            tokens = {"tokens_in": tokens_in, "tokens_out": tokens_out}
            await connection.execute(_TOTAL, {"run": run, "endpoint": endpoint, "step": step, **numbers, **tokens})
        routes = {"run": run, "routes": orjson.dumps(ROUTES).decode()}
        await connection.execute(
            "UPDATE run SET spec = json_set(spec, '$.routes', json(:routes)) WHERE id = :run", routes
        )
