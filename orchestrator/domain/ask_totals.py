"""What a run with a rollout has asked: counts, tokens, seconds and cost of each endpoint and step."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.domain.costs import bill_runs
from orchestrator.domain.phrases import count, duration, money
from orchestrator.domain.readings import sum_known

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.domain.costs import Receipt


@dataclass(frozen=True, slots=True)
class AskTotal:
    """The asks of one endpoint, by the name that the rollout uses; "" stands for calls of functions.

    `step`: the only one that counts here, or the name of the function; None for all of them. `seconds`: of all requests
    together. `cost`: dollars, None if they are not known.
    """

    endpoint: str
    step: str | None
    asks: int
    discarded: int
    retried: int
    tokens_in: int | None
    tokens_out: int | None
    seconds: float
    cost: float | None = None

    def __str__(self) -> str:
        step = f" ({self.step})" if self.step else ""
        who = f"{self.endpoint}{step}" if self.endpoint else self.step or "functions"
        parts = [count(self.asks, "ask" if self.endpoint else "call")]
        parts += [f"{self.discarded:,} discarded"] if self.discarded else []
        parts += [f"{self.retried:,} retried"] if self.retried else []
        tokens = ((self.tokens_in, "in"), (self.tokens_out, "out"))
        parts += [f"{number:,} tokens {way}" for number, way in tokens if number]
        parts += [duration(self.seconds)] + ([money(self.cost)] if self.cost is not None else [])
        return f"{who}: {', '.join(parts)}"


def ask_lines(totals: Sequence[AskTotal]) -> list[str]:
    """Return a line such as `asked writer (draft): 1,200 asks, 3 discarded, 96,000 tokens in, 14 min 2 s` for each."""
    return [f"{'asked' if one.endpoint else 'called'} {one}" for one in totals]


def by_endpoint(totals: Sequence[AskTotal]) -> list[AskTotal]:
    """Return the sums over the steps of each endpoint."""
    of_endpoint = defaultdict[str, list[AskTotal]](list)
    for total in totals:
        of_endpoint[total.endpoint].append(total)
    return [_sum(endpoint, some) for endpoint, some in of_endpoint.items()]


def _sum(endpoint: str, totals: Sequence[AskTotal]) -> AskTotal:
    return AskTotal(
        endpoint,
        None,
        sum(one.asks for one in totals),
        sum(one.discarded for one in totals),
        sum(one.retried for one in totals),
        sum_known([one.tokens_in for one in totals]),
        sum_known([one.tokens_out for one in totals]),
        sum(one.seconds for one in totals),
    )


def priced(
    totals: Sequence[AskTotal],
    routes: Mapping[str, Sequence[str]],
    run_id: int,
    receipts: Sequence[Receipt],
    now: float,
) -> list[AskTotal]:
    """Return the totals with what each of them cost: a run's part of its endpoints' bills, by seconds of requests.

    `routes`: the names of the endpoints behind each name that the rollout uses.
    """
    if not totals:
        return []
    costs = {route: _cost(set(names), run_id, receipts, now) for route, names in routes.items()}
    seconds = {one.endpoint: one.seconds for one in by_endpoint(totals)}
    return [_priced(one, costs.get(one.endpoint), seconds[one.endpoint]) for one in totals]


def _priced(one: AskTotal, cost: float | None, seconds: float) -> AskTotal:
    return one if cost is None or not seconds else replace(one, cost=cost * one.seconds / seconds)


def _cost(names: set[str], run_id: int, receipts: Sequence[Receipt], now: float) -> float | None:
    cost = bill_runs((one for one in receipts if one.endpoint in names), now).get(run_id)
    return None if cost is None else cost.dollars
