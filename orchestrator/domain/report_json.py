"""The report as JSON, as `report --json` prints it and hooks receive it. Moments are seconds since 1970 UTC."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from orchestrator.domain.answer import by_name

if TYPE_CHECKING:
    from orchestrator.domain.readings import Asked
    from orchestrator.domain.report import Report, RunReport


def as_json(report: Report) -> dict[str, object]:
    """Plain values only."""
    data, totals = report.data, report.totals
    return {
        "since": data.since,
        "until": data.until,
        "owed": [asdict(window) for window in report.debts],
        "awake": [asdict(window) for window in report.awake],
        "asleep": [asdict(window) for window in report.asleep],
        "totals": {
            "runs": len(report.runs),
            "finished": totals.finished,
            "in_trouble": totals.in_trouble,
            **_asked(totals.asked),
            "awake": {"billed": totals.awake, **asdict(totals.spent)},
            "cost": totals.dollars,
            "cost_per_1000": totals.per_1000,
        },
        "runs": [_run(run) for run in report.runs],
        "queued": [asdict(one) for one in data.waiting],
        "slots_without_a_run": [asdict(one) for one in data.lapses],
        "broken_files": [asdict(one) for one in data.broken],
        "cost_by_day": [{"day": day.what, "seconds": day.seconds, "dollars": day.dollars} for day in report.days],
    }


def _run(run: RunReport) -> dict[str, object]:
    ran, cost = run.ran, run.cost
    return {
        "run": ran.id,
        "job": ran.job,
        "state": run.state,
        "error": ran.error,
        "next": run.next,
        "created_at": ran.created_at,
        "started_at": ran.started_at,
        "ended_at": ran.ended_at,
        "due_at": ran.due_at,
        "deadline": ran.deadline,
        "late": run.late,
        "why_queued": ran.why if run.state == "queued" else None,
        "output": ran.output,
        "counts": {"total": ran.total, "completed": ran.completed, "discarded": ran.discarded, "left": run.left},
        "noted": by_name(ran.noted),
        "asked": _asked(run.asked),
        "traffic": asdict(ran.traffic),
        "asks": [asdict(total) for total in run.asks],
        "awake": {"billed": cost.seconds if cost else 0.0, **asdict(run.spent), "unaccounted": run.lost},
        "cost": cost.dollars if cost else None,
        "cost_per_1000": run.figures.cost_per_1000,
        "failures": [asdict(failure.cause) | {"next": failure.next} for failure in run.failures],
        "compared_with": run.before,
        "changes": [asdict(change) for change in run.changes],
        "told": [asdict(told) for told in ran.notified],
        "owes_news": ran.owes_notification,
        "over_time": [
            asdict(span) | {"items_per_second": span.items_per_second, "tokens_per_second": span.tokens_per_second}
            for span in run.course
        ],
    }


def _asked(asked: Asked) -> dict[str, object]:
    return asdict(asked) | {"items_per_second": asked.rate, "tokens_per_second": asked.token_rate}
