"""orchestrator endpoints show: show an endpoint, which processes hold it, and its cost this month."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime

import typer

from orchestrator.app.endpoints.facts import facts_of
from orchestrator.cli.command import print_json
from orchestrator.cli.endpoints.list import hardware_words, price_words
from orchestrator.cli.endpoints.which import Name, Namespace, with_endpoint
from orchestrator.cli.options import AsJson
from orchestrator.cli.terminal import say
from orchestrator.domain.phrases import duration, money
from orchestrator.endpoints.hf_hardware import Hardware
from orchestrator.engine.awake.by_hand import held_by


def show(context: typer.Context, name: Name, namespace: Namespace = None, json: AsJson = False) -> None:
    """Show an endpoint: its state, hardware, price, current users, and cost this month."""
    facts, using = with_endpoint(context, name, namespace, lambda one, app: facts_of(one, app.store), json=json)
    if json:
        print_json(facts | {"held_by": [asdict(holder) for holder in using]})
        return
    for key, value in facts.items():
        if value is not None:
            say(f"{key.replace('_', ' ')}: {_words(key, value)}")
    say(f"held by: {', '.join(map(held_by, using)) or 'nobody'}")


def _words(key: str, value: object) -> str:
    match key, value:
        case "price_per_hour", float() | int():
            words = price_words(value)
        case "hardware", dict():
            words = hardware_words(Hardware(**value))
        case "replicas", dict():
            ready = "" if value["ready"] is None else f"{value['ready']} of {value['target']} ready, "
            words = f"{ready}{value['min']} to {value['max']}"
        case "jobs", list():
            words = "; ".join(map(_job_words, value)) or "none"
        case "this_month", dict():
            words = f"awake {duration(value['seconds'])}, {money(value['dollars'])}"
        case "kept_awake", dict():
            words = f"by {value['kept_by']}{_until(value['expires_at'])}"
        case _:
            words = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
    return words


def _job_words(job: dict[str, object]) -> str:
    stage = f"{job['stage']} ({job['message']})" if job["message"] else str(job["stage"])
    return f"{job['job']} {stage} on {job['hardware']}, {job['url'] or 'no URL yet'}"


def _until(moment: float | None) -> str:
    return "" if moment is None else f" until {datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%SZ}"
