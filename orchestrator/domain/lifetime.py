"""Lifetime: after how many seconds a provider ends a server by its own timer, unless it was ended before."""

from __future__ import annotations

from math import inf

_ENDING = 180.0  # seconds for the last answers and for a pause that has to be asked for several times
_LATE = 3600.0  # a run goes on after its deadline, and a server that is replaced in mid-run has to start again


def lifetime(*, budget_left: float = inf, closes_in: float = inf, deadline_in: float = inf) -> float:
    """Return the most seconds for which a run can need a server that it starts now; infinite if nothing limits them.

    A run that needs longer, because its budget of the next day has begun or its deadline has passed, starts another
    server when this one ends.

    Args:
        budget_left: seconds until a budget is spent.
        closes_in: seconds until the run's window closes.
        deadline_in: seconds until the run's deadline; negative if it has passed.

    """
    until_late = deadline_in + _LATE if deadline_in > 0 else inf
    return max(0.0, min(budget_left + _ENDING, closes_in + _ENDING, until_late))
