"""The report on a period or on one run: results, costs, and how the endpoints were left.

`report_on` computes the report from what is in the ledger (`ReportData`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.domain.ask_totals import priced
from orchestrator.domain.command_line import typed
from orchestrator.domain.comparison import Difference, Figures, compare
from orchestrator.domain.costs import Cost, bill, bill_runs
from orchestrator.domain.errors import FailureKind
from orchestrator.domain.readings import Asked, Span, asked, merged, spans, sum_known
from orchestrator.domain.run import RunState
from orchestrator.domain.terms import Spent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.domain.ask_totals import AskTotal
    from orchestrator.domain.costs import Receipt
    from orchestrator.domain.readings import Reading
    from orchestrator.domain.report_data import AwakeWindow, Ran, ReportData
    from orchestrator.domain.run import Cause

POINTS = 240  # at most this many spans of a run are shown
DAYS = 14  # the number of days whose cost is shown
_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Failure:
    """The items of a run that failed for the same cause, and the command to type next."""

    cause: Cause
    next: str


@dataclass(frozen=True, slots=True)
class RunReport:
    """The report on one run. `asked` counts all of it, `lately` only the part in the report's period.

    `lost`: seconds awake that a dead process did not account for. `late`: seconds after its deadline. `asks`: what a
    rollout has asked, with its cost.
    """

    ran: Ran
    state: str
    asked: Asked
    lately: Asked
    course: Sequence[Span]
    spent: Spent
    lost: float
    cost: Cost | None
    failures: Sequence[Failure]
    before: int | None
    changes: Sequence[Difference]
    late: float | None
    next: str | None
    asks: Sequence[AskTotal] = ()

    @property
    def left(self) -> int:
        """The number of items that are not settled."""
        return self.ran.total - self.ran.completed - self.ran.discarded

    @property
    def figures(self) -> Figures:
        """The figures by which runs are compared."""
        return _figures(self.asked, self.cost)

    @property
    def in_trouble(self) -> bool:
        """Whether the run needs attention."""
        ended_early = self.ran.state in {RunState.FAILED, RunState.STOPPED} and self.ran.due_at is None
        unnotified = any(not result.ok for result in self.ran.notified)
        return bool(
            ended_early
            or self.failures
            or self.late
            or unnotified
            or self.ran.owes_notification
            or self.state == "abandoned"
        )


@dataclass(frozen=True, slots=True)
class Totals:
    """The period in numbers. `dollars` is None where a price is not known."""

    finished: int
    in_trouble: int
    asked: Asked
    spent: Spent
    awake: float
    dollars: float | None

    @property
    def per_1000(self) -> float | None:
        """Dollars per thousand settled items; None if a price is not known."""
        return self.dollars / self.asked.settled * 1000 if self.dollars is not None and self.asked.settled else None


@dataclass(frozen=True, slots=True)
class Report:
    """The whole report. `debts`: endpoints that are owed a pause; `awake`: other endpoints that are awake."""

    data: ReportData
    runs: Sequence[RunReport]
    debts: Sequence[AwakeWindow]
    awake: Sequence[AwakeWindow]
    asleep: Sequence[AwakeWindow]
    days: Sequence[Cost]
    totals: Totals


def report_on(data: ReportData) -> Report:
    """Compute the report from what is in the ledger."""
    now = data.until
    costs = bill_runs(data.receipts, now)
    uses: dict[int | None, list[Receipt]] = {}
    for use in data.receipts:
        uses.setdefault(use.run_id, []).append(use)
    runs = [_report_on_run(ran, data, costs, uses.get(ran.id, [])) for ran in data.runs]
    open_ = [window for window in data.windows if window.billed_to is None]
    recent = [one for one in data.receipts if (one.billed_to or now) > now - DAYS * _DAY]
    return Report(
        data,
        runs,
        [window for window in open_ if window.is_debt],
        [window for window in open_ if not window.is_debt],
        [window for window in data.windows if window.billed_to is not None],
        bill(recent, "day", now),
        _totals(runs, data),
    )


def _report_on_run(ran: Ran, data: ReportData, costs: Mapping[int, Cost], uses: Sequence[Receipt]) -> RunReport:
    whole, cost = asked(ran.readings), costs.get(ran.id)
    ended = data.until if ran.finished_at is None else ran.finished_at
    compared = ran.before if whole.settled else None
    before = Figures() if compared is None else _figures(asked(compared.readings), costs.get(compared.id))
    return RunReport(
        ran,
        _state(ran),
        whole,
        asked(_since(ran.readings, data.since)),
        merged(spans(ran.readings), POINTS),
        sum((use.spent for use in uses), Spent()),
        sum(max(0.0, (use.until or data.until) - use.since - use.spent.seconds) for use in uses if _unsaid(use)),
        cost,
        [Failure(cause, _next_for(cause, ran)) for cause in ran.causes],
        None if compared is None else compared.id,
        compare(before, _figures(whole, cost)),
        ended - ran.deadline if ran.deadline is not None and ended > ran.deadline and not _given_up(ran) else None,
        _next(ran),
        priced(ran.asks, ran.routes, ran.id, data.receipts, data.until),
    )


def _unsaid(use: Receipt) -> bool:
    """Whether a use has ended without saying how its seconds were spent, since its process died."""
    return use.until is not None and not use.spent.seconds


def _given_up(ran: Ran) -> bool:
    return ran.state in {RunState.CANCELLED, RunState.SUPERSEDED}


def _figures(whole: Asked, cost: Cost | None) -> Figures:
    if not whole.settled:
        return Figures()
    dollars = None if cost is None else cost.dollars
    per_1000 = None if dollars is None else dollars / whole.settled * 1000
    return Figures(whole.rate, per_1000, whole.discarded / whole.settled, whole.settled)


def _since(readings: Sequence[Reading], since: float) -> list[Reading]:
    """Return the readings after a moment, with counts that start at that moment."""
    starts = {one.process_id: one for one in readings if one.at <= since}
    return [_less(one, starts.get(one.process_id)) for one in readings if one.at > since]


def _less(one: Reading, start: Reading | None) -> Reading:
    if start is None:
        return one
    return replace(
        one,
        completed=one.completed - start.completed,
        discarded=max(0, one.discarded - start.discarded),
        requests=one.requests - start.requests,
        tokens_in=None if one.tokens_in is None else one.tokens_in - (start.tokens_in or 0),
        tokens_out=None if one.tokens_out is None else one.tokens_out - (start.tokens_out or 0),
    )


def _state(ran: Ran) -> str:
    """Return the run's state in a word for the user."""
    if ran.state.ended:
        return ran.state
    if ran.held:
        return "held"
    if ran.executing:
        return "running"
    if ran.due_at is not None:
        return "queued"
    # a process that ends cleanly records its state; this one was killed, or its machine stopped
    return "abandoned" if ran.state in {RunState.OPEN, RunState.INGESTING} else ran.state


def _next(ran: Ran) -> str | None:
    """Return the command that continues a run; None if there is nothing to do, or it continues by itself."""
    if ran.executing or ran.state.ended:
        return None
    if ran.held:
        return f"orchestrator go {ran.id}"
    return None if ran.due_at is not None else _run_again(ran)


def _run_again(ran: Ran) -> str:
    return typed("run", ran.jobfile) if ran.jobfile else typed("status", ran.id)


def _next_for(cause: Cause, ran: Ran) -> str:
    """Return the command to type about items that failed for this cause."""
    match cause.kind:
        case (
            FailureKind.PARSE | FailureKind.UNREADABLE
        ):  # fixed by a change of the job file or the source; answers are kept
            return _run_again(ran)
        case (
            FailureKind.RATE_LIMITED
            | FailureKind.UNAVAILABLE
            | FailureKind.TIMEOUT
            | FailureKind.CONNECTION
            | FailureKind.GARBLED
        ):  # the same request may succeed next time
            return f"orchestrator retry {ran.id}"
        case _:  # the request may be the cause: look at it
            return typed("item", ran.id, cause.sample)


def _totals(runs: Sequence[RunReport], data: ReportData) -> Totals:
    """Return the period's numbers. Runs and awake windows that began earlier count with the part in the period.

    A report on one run counts all of it.
    """
    parts = [run.asked if data.one_run else run.lately for run in runs]
    if data.one_run:
        mine = [run.cost for run in runs if run.cost is not None]
        awake = sum(cost.seconds for cost in mine)
        dollars = _sum_dollars([cost.dollars for cost in mine])
        spent = sum((run.spent for run in runs), Spent())
    else:
        within = [use for use in data.receipts if (use.billed_to or data.until) > data.since]
        costs = bill(within, "endpoint", data.until, since=data.since)
        awake = sum(cost.seconds for cost in costs)
        dollars = _sum_dollars([cost.dollars for cost in costs])
        spent = sum((use.spent for use in within), Spent())
    return Totals(
        sum(run.ran.state is RunState.FINISHED for run in runs),
        sum(run.in_trouble for run in runs),
        Asked(
            sum(part.completed for part in parts),
            sum(part.discarded for part in parts),
            sum(part.requests for part in parts),
            sum_known([part.tokens_in for part in parts]),
            sum_known([part.tokens_out for part in parts]),
            sum(part.asking for part in parts),
            max((part.peak for part in parts), default=0.0),
        ),
        spent,
        awake,
        dollars,
    )


def _sum_dollars(dollars: Sequence[float | None]) -> float | None:
    """Return the sum; None if a price is not known."""
    return None if any(one is None for one in dollars) else sum(one for one in dollars if one is not None)
