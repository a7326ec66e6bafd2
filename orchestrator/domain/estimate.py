"""Estimates: how long a run will ask and keep endpoints awake, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.domain.phrases import count, duration, money
from orchestrator.domain.terms import cost_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.domain.charges import UsePrice
    from orchestrator.domain.measured_pace import MeasuredPace, Workload


@dataclass(frozen=True, slots=True)
class Billing:
    """What an endpoint that bills adds to the asking, as in its latest windows.

    `beside`: seconds that it is awake without being asked: cold start, pause, rests. `share`: the fraction of the
    asking for which it is awake. `price_per_hour`: dollars; None if it is not known.
    """

    endpoint: str
    beside: float
    share: float
    price_per_hour: float | None


@dataclass(frozen=True, slots=True)
class Usage:
    """How fast the policy lets a run ask, and what its endpoint charges for answers.

    `items_per_request`: None if that is chosen while the run goes on. `tokens`: of an item's requests and answers, as
    the server counted them so far; None if it did not. `price`: None if nothing is charged for answers.
    """

    items_per_request: int | None = 1
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    tokens: tuple[float, float] | None = None
    price: UsePrice | None = None

    def shortest(self, load: Workload) -> float:
        """Return the seconds that the policy's limits need for this load."""
        minutes = [0.0]
        if self.requests_per_minute is not None:
            minutes.append(load.items / (self.items_per_request or 1) / self.requests_per_minute)
        if self.tokens_per_minute is not None and self.tokens is not None:
            minutes.append(load.items * sum(self.tokens) / self.tokens_per_minute)
        return 60 * max(minutes)

    def dollars(self, load: Workload) -> float | None:
        """Return what the answers to this load cost; None if that cannot be told."""
        if self.price is None:
            return 0.0
        tokens = (0.0, 0.0) if self.price.per_million_tokens is None else self.tokens
        requests = 0.0 if self.price.per_request is None else self.items_per_request
        if tokens is None or requests is None:
            return None
        asked = load.items / (requests or 1)
        return self.price.charge(asked, load.items * tokens[0], load.items * tokens[1]).dollars


_NO_LIMITS = Usage()


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will take. `seconds`: of asking. `awake_seconds`: of all endpoints that bill, added up.

    `cost`: dollars for both the time awake and answers that are charged. What is not known is None, and `reason` says
    why. `basis`: what the figures come from, in words.
    """

    seconds: float | None = None
    awake_seconds: float | None = None
    cost: float | None = None
    basis: str | None = None
    reason: str | None = None

    def __str__(self) -> str:
        if self.seconds is None:
            charged = "none" if self.cost is None else f"{money(self.cost)} for answers; no time"
            return f"estimate: {charged}, {self.reason}"
        if self.awake_seconds is None:
            text = f"estimate: about {duration(self.seconds)} of asking"
        else:
            text = f"estimate: about {self.awake_seconds / 60:,.1f} min awake"
        text += "" if self.cost is None else f", {money(self.cost)}"
        text += "" if self.basis is None else f" ({self.basis})"
        return text if self.reason is None else f"{text}; {self.reason}"


NOTHING_TO_ASK = Estimate(0.0, 0.0, 0.0, "nothing is to be asked")


def estimated(
    load: Workload, pace: MeasuredPace | None, billing: Sequence[Billing], basis: str, usage: Usage = _NO_LIMITS
) -> Estimate:
    """Return the estimate for a load. `billing`: of the endpoints that bill; empty if none does.

    `basis`: which requests the pace is that of.
    """
    if not load.items:
        return NOTHING_TO_ASK
    charged = usage.dollars(load)
    if pace is None:
        why = "no earlier run of the job has asked enough with this endpoint: try --canary"
        return Estimate(cost=charged if usage.price is not None else None, reason=why)
    seconds, shortest = pace.seconds(load), usage.shortest(load)
    basis += f", at {round(pace.in_flight)} in flight"
    if shortest > seconds:
        seconds, basis = shortest, f"{basis}, as slow as the policy's limits"
    elif not pace.capped:
        basis += ", where the server was not at its limit: more at once would be faster"
    if not billing and usage.price is None:
        return Estimate(seconds, basis=basis, reason="no endpoint of the job is billed while it is awake")
    awake = sum(one.beside + one.share * seconds for one in billing) if billing else None
    costs = {one.endpoint: cost_of(one.beside + one.share * seconds, one.price_per_hour) for one in billing}
    unknown = [name for name, cost in costs.items() if cost is None]
    if unknown:
        why = f"the price of {', '.join(unknown)} is not known: set price_per_hour= on it"
        return Estimate(seconds, awake, None, basis, why)
    if charged is None:
        return Estimate(seconds, awake, None, basis, "what answers will cost cannot be told from earlier ones")
    return Estimate(seconds, awake, charged + sum(cost or 0.0 for cost in costs.values()), basis)


def without_waking(billing: Sequence[Billing]) -> list[Billing]:
    """Return the same for endpoints that are awake already."""
    return [replace(one, beside=0.0) for one in billing]


def basis_of(run: int, samples: int) -> str:
    """Return which requests an estimate comes from: `412 requests of run 7`."""
    return f"{count(samples, 'request')} of run {run}"
