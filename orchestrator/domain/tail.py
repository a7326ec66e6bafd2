"""The tail of a run: whether a fallback that charges by use finishes for less than keeping endpoints awake."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.domain.phrases import count, money
from orchestrator.domain.terms import cost_of

if TYPE_CHECKING:
    from orchestrator.domain.charges import UsePrice

SETTLED_IN = 30.0  # seconds of asking after which the present pace is taken to be that of the rest


@dataclass(frozen=True, slots=True)
class HandedOver:
    """Items that are left to the fallback. `here`, `there`: what finishing costs with endpoints awake, and there."""

    items: int
    here: float
    there: float

    def __str__(self) -> str:
        return (
            f"{count(self.items, 'item')} left to the fallback: finishing there costs about {money(self.there)}, "
            f"and staying awake for them about {money(self.here)}"
        )


def handed_over(
    left: int, rate: float, price_per_hour: float | None, use_price: UsePrice, tokens: tuple[float, float] | None
) -> HandedOver | None:
    """Decide whether the items that are left are handed over; None if they are not, or a price is not known.

    `rate`: items settled per second of late; if none were, finishing takes as long again as that was looked at.
    `tokens`: those of an item, of the request and of the answer; None if no server has counted any.
    """
    if not left or price_per_hour is None or (use_price.per_million_tokens is not None and tokens is None):
        return None
    here = cost_of(left / rate if rate else SETTLED_IN, price_per_hour)
    there = use_price.charge(left, *(count_ * left for count_ in tokens or (0.0, 0.0))).dollars
    return None if here is None or there >= here else HandedOver(left, here, there)
