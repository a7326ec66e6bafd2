"""Budgets: limits on billed endpoints for a run, for its job per day and for all jobs per day, and what is left."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from orchestrator.domain.costs import shared
from orchestrator.domain.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from orchestrator.domain.costs import Receipt
    from orchestrator.domain.policy import Policy
    from orchestrator.domain.terms import Spent

Whose = Literal["run", "job", "ledger"]


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit in dollars and one in seconds that endpoints may be awake; None for no limit."""

    max_cost: float | None = None
    max_awake: float | None = None

    def __bool__(self) -> bool:
        """Whether this limits anything."""
        return self.max_cost is not None or self.max_awake is not None


NO_LIMIT = Budget()


@dataclass(frozen=True, slots=True)
class Budgets:
    """All budgets that apply to a run. `job` and `ledger` are per UTC day.

    `settings`: the names of what sets the budget of the run, in dollars and in seconds.
    """

    run: Budget = NO_LIMIT
    job: Budget = NO_LIMIT
    ledger: Budget = NO_LIMIT
    settings: tuple[str, str] = ("policy.max_cost", "policy.max_awake")

    def __bool__(self) -> bool:
        """Whether any of them limits anything."""
        return bool(self.run or self.job or self.ledger)

    def check_price(self, price_per_hour: float | None) -> None:
        """Raise `UsageError` if a budget in dollars is set and the endpoint's price is unknown."""
        if price_per_hour is not None:
            return
        for whose, budget in (("run", self.run), ("job", self.job), ("ledger", self.ledger)):
            if budget.max_cost is not None:
                cost, awake = self.settings if whose == "run" else _SETTINGS[whose]
                raise UsageError(
                    f"{cost} needs to know what the endpoint costs: set price_per_hour= on the endpoint, "
                    f"or limit the time with {awake}"
                )


_SETTINGS = {
    "job": ("policy.max_cost_per_day", "policy.max_awake_per_day"),
    "ledger": ("max_cost_per_day in the settings file's [budget]", "max_awake_per_day"),
}


def budgets_of(policy: Policy, ledger: Budget) -> Budgets:
    """Return the budgets that apply to runs of a job with this policy."""
    day = Budget(policy.max_cost_per_day, policy.max_awake_per_day)
    return Budgets(Budget(policy.max_cost, policy.max_awake), day, ledger)


@dataclass(frozen=True, slots=True)
class Use:
    """What was used so far, and its current rate of growth per second. Unknown prices count as 0."""

    seconds: float = 0.0
    dollars: float = 0.0
    seconds_rate: float = 0.0
    dollars_rate: float = 0.0


@dataclass(frozen=True, slots=True)
class BudgetStanding:
    """Which budget is spent, if any, and its use; `lasts`: seconds until one can be spent, if none is yet.

    `left`: the same, as if no new budget began at midnight; infinite if there is no budget.
    """

    whose: Whose | None
    use: Use
    lasts: float
    until: float | None = None  # when a new budget begins
    left: float = 0.0

    def __str__(self) -> str:
        """Return which budget is spent, as a phrase."""
        state = {
            "run": "the budget is spent",
            "job": "the job's budget for the day is spent",
            "ledger": "the budget of all jobs for the day is spent",
            None: "the budgets are not spent",
        }[self.whose]
        money = f", ${self.use.dollars:.2f}" if self.use.dollars else ""
        return f"{state} ({self.use.seconds:.0f} s awake{money})"

    @property
    def remedy(self) -> str:
        """What the user can do to continue the run."""
        if self.until is None:
            return "raise policy.max_cost or policy.max_awake to go on"
        return f"run the same command again after {datetime.fromtimestamp(self.until, UTC):%Y-%m-%d %H:%M} UTC"


def standing(
    budgets: Budgets, receipts: Sequence[Receipt], run_id: int | None, job: str, now: float, *, begun: float = 0.0
) -> BudgetStanding:
    """Return the standing of the budgets at `now`. `receipts`: those of all windows that the budgets may cover.

    `run_id`: None for a command of the user, whose budget covers what has been used under its name since a moment.
    """

    def is_runs(receipt: Receipt) -> bool:
        return receipt.run_id == run_id and (run_id is not None or (receipt.job == job and receipt.since >= begun))

    midnight, next_midnight = day_of(now)
    scopes: tuple[tuple[Whose, Budget, float, float | None, Callable[[Receipt], bool]], ...] = (
        ("run", budgets.run, 0.0, None, is_runs),
        ("job", budgets.job, midnight, next_midnight, lambda receipt: receipt.job == job),
        ("ledger", budgets.ledger, midnight, next_midnight, lambda _: True),
    )
    least = float("inf")
    for whose, budget, since, until, is_ours in scopes:
        use = used(receipts, since, now, is_ours)
        left = min(
            _lasts(budget.max_cost, use.dollars, use.dollars_rate),
            _lasts(budget.max_awake, use.seconds, use.seconds_rate),
        )
        if left <= 0:
            return BudgetStanding(whose, use, 0.0, until)
        least = min(least, left)
    return BudgetStanding(None, Use(), min(least, next_midnight - now), left=least)


def used(receipts: Iterable[Receipt], since: float, now: float, is_ours: Callable[[Receipt], bool]) -> Use:
    """Return what the holds selected by `is_ours` have used since then.

    The holds on a window share its cost in proportion to their length; the shares add up to the cost of the window.
    """
    windows: dict[int, list[Receipt]] = defaultdict(list)
    for receipt in receipts:
        windows[receipt.window_id].append(receipt)
    seconds = dollars = seconds_rate = dollars_rate = 0.0
    for sharing in windows.values():
        first = sharing[0]
        share = sum(part for hold, part in shared(sharing, now, since=since) if is_ours(hold))
        seconds += first.awake_in(since, now) * share
        dollars += (first.dollars_in(since, now) or 0.0) * share
        if first.billed_to is None and share:
            seconds_rate, dollars_rate = seconds_rate + 1, dollars_rate + (first.price_per_hour or 0.0) / 3600
    return Use(seconds, dollars, seconds_rate, dollars_rate)


def day_of(now: float) -> tuple[float, float]:
    """Return when the UTC day of `now` began and when the next one begins."""
    midnight = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight.timestamp(), (midnight + timedelta(days=1)).timestamp()


def to_finish(left: int, settled: int, spent: Spent) -> float | None:
    """Return the seconds of work for `left` items at the rate of the settled ones; None if there is no rate yet."""
    return None if not settled or not spent.work else left * spent.work / settled


def _lasts(limit: float | None, used_up: float, rate: float) -> float:
    """Return the seconds until the limit is reached at that rate."""
    if limit is None:
        return float("inf")
    if used_up >= limit:
        return 0.0
    return (limit - used_up) / rate if rate else float("inf")
