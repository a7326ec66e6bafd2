"""A load test as JSON: everything that was measured, with its course."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from orchestrator.domain.load import ClosedLoop, OpenLoop

if TYPE_CHECKING:
    from orchestrator.domain.load import Load
    from orchestrator.domain.load_figures import LoadFigures, LoadTest
    from orchestrator.domain.load_tally import LoadSlice


def as_json(test: LoadTest) -> dict[str, object]:
    """Return the load test, with `figures` for its load, or for the knee of a sweep."""
    knee = test.knee
    return {
        "endpoint": test.endpoint,
        "load": _load(test.load),
        "seconds": test.seconds,
        "began_at": test.began_at,
        "items_per_request": test.items_per_request,
        "client": test.client,
        "figures": _figures(test.shown),
        "steps": [_figures(step) for step in test.steps],
        "knee": None if knee is None else asdict(knee),
        "met": test.met,
        "ended": test.ended or ("interrupted" if test.interrupted else None),
        "server": None if test.server is None else asdict(test.server),
        "cold_start": test.cold_start,
        "first_answer": test.first_answer,
        "remembered": test.remembered,
        "awake": None if test.spent is None else asdict(test.spent) | {"all": test.spent.seconds},
        "price_per_hour": test.price_per_hour,
        "billed": None if test.billed is None else asdict(test.billed),
        "cost": test.cost,
        "cost_per_1000": test.cost_per_1000,
        "proof": test.proof,
        "course": [_slice(part) for part in test.course],
    }


def _load(load: Load) -> dict[str, object]:
    match load:
        case OpenLoop(rate, spaced):
            return {"loop": "open", "rate": rate, "arrivals": str(spaced)}
        case ClosedLoop(concurrency):
            return {"loop": "closed", "concurrency": concurrency}
    return {"loop": "sweep"}


def _figures(figures: LoadFigures) -> dict[str, object]:
    verdicts = [asdict(verdict) | {"objective": str(verdict.objective)} for verdict in figures.verdicts]
    return asdict(figures) | {"verdicts": verdicts}


def _slice(part: LoadSlice) -> dict[str, object]:
    known = {name: value for name, value in asdict(part).items() if name != "latency"}
    return known | {f"p{percent}": part.latency.percentile(percent) for percent in (50, 95, 99)}
