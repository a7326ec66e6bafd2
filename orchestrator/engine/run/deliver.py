"""Deliver: write the settled items in input order, with a manifest that proves it.

Deliver pages through the members in input order (`Views.settled` reads only what most rows need,
`exact_json.loads_all` parses a page at once), writes temporary files, syncs, renames, and writes the manifest. A
job's own files are those that the manifest beside them names, under the job's name; after a kill between two
renames, those whose SHA-256 the unfinished manifest has. Nothing else is replaced without `--overwrite`, nor
anything whose SHA-256 has changed; `engine/run/files.py` checks this before anything is asked. An output with more
of the same rows is kept under its run's number. A run that has settled nothing since it was delivered
(`delivered_at` is set, and it is the job's latest) is not delivered again if the sink's `stamp`, over settings,
sizes and times of all three files, still is the one that the run keeps (`deliver_once`).
"""

from __future__ import annotations

import platform
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from orchestrator.domain.answer import by_name
from orchestrator.domain.ask_totals import by_endpoint
from orchestrator.domain.costs import bill_runs
from orchestrator.domain.errors import OrchestratorError, UsageError
from orchestrator.domain.readings import lost_requests
from orchestrator.domain.urls import shown, without_secrets
from orchestrator.engine.results import records_of, results_in
from orchestrator.ports import ChecksTarget, SeesItsDelivery
from orchestrator.version import __version__

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from orchestrator.domain.run import Counts, Run
    from orchestrator.ports import Delivery, Sink
    from orchestrator.store import Store
    from orchestrator.store.views import SettledPage

_DAY = 86_400.0  # seconds: an endpoint may have been awake before the run began


async def deliver(run: Run, store: Store, sink: Sink) -> Mapping[str, object]:
    """Deliver what is settled now, which also works during a run. Return the manifest.

    The sink's placeholders are filled in. Raises `UsageError` if the output exists and is not the job's.
    """
    sink = sink.for_run(run.names)
    if isinstance(sink, ChecksTarget):
        await to_thread.run_sync(sink.check, run.job)
    counts = await store.views.counts(run.id, run.total)
    inputs = completed = discarded = 0
    async with _opened(sink) as delivery:
        async for page in store.views.settled(run.id):
            await to_thread.run_sync(_write, delivery, page)
            inputs, completed = inputs + page.rows, completed + len(page.completed)
            discarded += len(page.discarded)
        made = await _made(run, store)
        manifest = await to_thread.run_sync(_manifest, run, counts, (inputs, completed, discarded), made)
        return await to_thread.run_sync(delivery.seal, manifest)


async def deliver_once(run: Run, store: Store, sink: Sink) -> tuple[Mapping[str, object], str | None]:
    """Deliver a finished run, unless its last delivery has everything and is still there. Return manifest and stamp."""
    before = await _standing(run, sink)
    if before is not None and await _is_current(run, *before, store):
        stamp, manifest = before
        return manifest, stamp
    try:
        manifest = await deliver(run, store, sink)
    except UsageError as error:
        elsewhere = f"all answers are kept, and `orchestrator export {run.id} -o FILE` writes them elsewhere"
        raise UsageError(f"{error}; {elsewhere}") from error
    after = await _standing(run, sink)
    return manifest, None if after is None else after[0]


async def _standing(run: Run, sink: Sink) -> tuple[str, Mapping[str, object]] | None:
    """Return what the sink says; None if it cannot look. Whatever prevents a delivery is said by the delivery."""
    named = sink.for_run(run.names)
    if not isinstance(named, SeesItsDelivery):
        return None
    try:
        return await to_thread.run_sync(named.standing)
    except OrchestratorError:
        return None


async def _is_current(run: Run, stamp: str, manifest: Mapping[str, object], store: Store) -> bool:
    """Whether the delivery with this stamp is the run's last one, and nothing was settled or billed after it.

    A run that settles something is opened again, and then it is not delivered; a later run of the job may have
    settled items that they share. The endpoint may have been awake for some time after the delivery.
    """
    if run.delivered_at is None or run.spec.about.get("delivery") != stamp:
        return False
    latest = await store.runs.latest(run.job)
    return latest is not None and latest.id == run.id and manifest.get("cost") == await _cost(run, store)


async def manifest_of(run: Run, store: Store) -> dict[str, object]:
    """Return the manifest of what is settled now, without files: nothing is delivered."""
    counts = await store.views.counts(run.id, run.total)
    written = (run.total, counts.completed, counts.discarded)
    return await to_thread.run_sync(_manifest, run, counts, written, await _made(run, store))


@asynccontextmanager
async def _opened(sink: Sink) -> AsyncIterator[Delivery]:
    opened = sink.open()
    delivery = await to_thread.run_sync(opened.__enter__)
    try:
        yield delivery
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(opened.__exit__, None, None, None)


def _write(delivery: Delivery, page: SettledPage) -> None:
    delivery.complete(records_of(page.completed))
    delivery.discard([item.record() for item in results_in(page.discarded)])


async def _made(run: Run, store: Store) -> dict[str, object]:
    """Return what making the answers took, so far."""
    tokens = await store.views.tokens(run.id)
    causes = await store.views.causes(run.id)
    return {
        "noted": by_name(await store.views.noted(run.id)),
        "causes": [{"kind": cause.kind, "status": cause.status, "items": cause.items} for cause in causes],
        "lost_requests": lost_requests(await store.readings.of(run.id)),
        "tokens": {"in": tokens.tokens_in, "out": tokens.tokens_out},
        "cost": await _cost(run, store),
        **await _asked(run, store),
        **({"computed_with": computers} if (computers := await store.runs.computers(run.id)) else {}),
    }


async def _asked(run: Run, store: Store) -> dict[str, object]:
    """Return what a rollout has asked, by endpoint; nothing for other runs."""
    totals = by_endpoint((await store.transcripts.totals([run.id])).get(run.id, []))
    counts = {one.endpoint or "functions": {"asks": one.asks, "discarded": one.discarded} for one in totals}
    return {"asks": counts} if counts else {}


async def _cost(run: Run, store: Store) -> dict[str, object] | None:
    costs = bill_runs(await store.receipts.since(run.created_at - _DAY), time.time())
    cost = costs.get(run.id)
    return None if cost is None else {"seconds": round(cost.seconds, 3), "dollars": cost.dollars}


def _manifest(run: Run, counts: Counts, written: tuple[int, int, int], made: Mapping[str, object]) -> dict[str, object]:
    """Return the proof: `inputs` = `completed` + `discarded` + `skipped`, counted in what was written."""
    inputs, completed, discarded = written
    about = run.spec.about
    limit = {"limit": about["limit"]} if about.get("limit") else {}
    return {
        "job": run.job,
        "run": run.id,
        "counts": {
            "inputs": inputs,
            "completed": completed,
            "discarded": discarded,
            "skipped": inputs - completed - discarded,
        },
        **made,
        "finished": run.is_read and counts.unfinished == 0,
        "input": {"source": about.get("source"), "sha256": run.spec.input_sha256} | limit,
        "fingerprint": run.spec.fingerprint,
        "endpoint": shown(about.get("identity")),  # older ledgers hold URLs with keys
        "request": _request(about),
        "started_at": _moment(run.started_at),
        "finished_at": _moment(run.finished_at),
        "delivered_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"orchestrator": __version__, "python": platform.python_version()},
    }


def _request(about: Mapping[str, object]) -> object:
    """Return the template that requests were made from, or where the function or rollout is; None if not known.

    Others may read it, so it shows no secrets.
    """
    spec = about.get("spec")
    template = spec.get("rollout") or spec.get("request", "{text}") if isinstance(spec, dict) else about.get("request")
    match template:
        case {"python": {"name": name}}:
            return f"{name} of the job file"
        case template:
            return without_secrets(template)


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
