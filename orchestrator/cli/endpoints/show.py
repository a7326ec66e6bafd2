"""orchestrator endpoints show: show an endpoint, which processes hold it, and its cost this month."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import typer

from orchestrator.cli.command import print_json
from orchestrator.cli.endpoints.list import hardware_words, price_words
from orchestrator.cli.endpoints.which import Name, Namespace, management, with_endpoint
from orchestrator.cli.run import AsJson
from orchestrator.cli.terminal import say
from orchestrator.domain.costs import bill
from orchestrator.domain.phrases import duration, money
from orchestrator.endpoints import HuggingFaceEndpoint
from orchestrator.endpoints.hf_spec import Hardware
from orchestrator.engine.awake.by_hand import absent, held_by, holders

if TYPE_CHECKING:
    from orchestrator.app import App
    from orchestrator.ports import Endpoint
    from orchestrator.store import Store
    from orchestrator.store.windows import Holder

Facts = dict[str, object]


def show(context: typer.Context, name: Name, namespace: Namespace = None, json: AsJson = False) -> None:
    """Show an endpoint: its state, hardware, price, current users, and cost this month."""
    facts, using = with_endpoint(context, name, namespace, _show, json=json)
    if json:
        print_json(facts | {"held_by": [asdict(holder) for holder in using]})
        return
    for key, value in facts.items():
        if value is not None:
            say(f"{key.replace('_', ' ')}: {_words(key, value)}")
    say(f"held by: {', '.join(map(held_by, using)) or 'nobody'}")


async def _show(endpoint: Endpoint, app: App) -> tuple[Facts, list[Holder]]:
    facts = await (_of_hugging_face(endpoint) if isinstance(endpoint, HuggingFaceEndpoint) else _of_others(endpoint))
    name = str(facts["endpoint"])
    using = await holders(app.store, name)
    return facts | await _from_the_ledger(app.store, name), using


async def _of_hugging_face(endpoint: HuggingFaceEndpoint) -> Facts:
    async with management(endpoint) as (api, name):
        found = await api.get(name)
        if found is None:
            raise absent(f"{api.namespace}/{name}")
        price = endpoint.price_per_hour
        price = await api.price(found.hardware) if price is None else price
    scaling = found.scaling
    return {
        "endpoint": f"{api.namespace}/{name}",
        "kind": "HuggingFaceEndpoint",
        "state": found.state,
        "message": found.message or None,
        "url": found.url,
        "serves": found.repository,
        "hardware": asdict(found.hardware),
        "price_per_hour": price,
        "replicas": {
            "ready": found.ready,
            "target": found.target,
            "min": scaling.min_replica,
            "max": scaling.max_replica,
        },
        "scale_to_zero_minutes": scaling.scale_to_zero_timeout,
    }


async def _of_others(endpoint: Endpoint) -> Facts:
    async with endpoint.control() as control:
        state = await control.state()
        terms = control.terms
        return {
            "endpoint": terms.endpoint if terms else endpoint.name,
            "kind": type(endpoint).__name__,
            "state": str(state) if terms else "kept running by somebody else",
            "message": control.said if terms else None,
            "url": address(endpoint),
            "answers": None if state.asleep and terms else await control.answers(),
            "price_per_hour": terms.price_per_hour if terms else None,
        }


async def _from_the_ledger(store: Store, name: str) -> Facts:
    now = time.time()
    month = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    lines = bill(await store.windows.receipts(month.timestamp(), name), "endpoint", now)
    cost = {"seconds": lines[0].seconds, "dollars": lines[0].dollars} if lines else {"seconds": 0.0, "dollars": 0.0}
    owed = any(debt.owed for debt in await store.windows.debts() if debt.endpoint == name)
    kept = await store.lasting_holds.of(name)
    return {"this_month": cost, "pause_owed": owed, "kept_awake": None if kept is None else asdict(kept)}


def address(endpoint: Endpoint) -> str:
    """Return an endpoint's URL without its query, which may contain a secret."""
    return urlsplit(str(getattr(endpoint, "url", "")))._replace(query="", fragment="").geturl()


def _words(key: str, value: object) -> str:
    match key, value:
        case "price_per_hour", float() | int():
            return price_words(value)
        case "hardware", dict():
            return hardware_words(Hardware(**value))
        case "replicas", dict():
            ready = "" if value["ready"] is None else f"{value['ready']} of {value['target']} ready, "
            return f"{ready}{value['min']} to {value['max']}"
        case "this_month", dict():
            return f"awake {duration(value['seconds'])}, {money(value['dollars'])}"
        case "kept_awake", dict():
            return f"by {value['kept_by']}{_until(value['expires_at'])}"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _until(moment: float | None) -> str:
    return "" if moment is None else f" until {datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%SZ}"
