"""Tuning: sessions begin with the concurrency and batch size that were best before."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.domain.limiter import Limiter
from orchestrator.domain.sizing import Sizer
from orchestrator.engine.asking.machine import Machine
from orchestrator.engine.asking.outage import Outage
from orchestrator.engine.run.session import run_session
from orchestrator.store.runs import Tuned

if TYPE_CHECKING:
    from orchestrator.domain.policy import Policy
    from orchestrator.domain.run import Run
    from orchestrator.domain.waiting import Waiting
    from orchestrator.engine.asking.effort import Effort
    from orchestrator.engine.asking.in_flight import InFlight
    from orchestrator.engine.asking.work_queue import WorkQueue
    from orchestrator.engine.awake.awake import Awake


async def run_tuned_session(
    run: Run, endpoint: Awake, queue: WorkQueue, in_flight: InFlight, effort: Effort, member: Awake
) -> Waiting | None:
    """Ask one member of an endpoint as `run_session` does, and remember the best concurrency and batch size.

    The session begins with those of the last one if it was alike: the same endpoint, identity and policy.
    """
    work = queue.work
    policy, identity = work.policy, run.spec.about.get("identity")
    shape = shape_of(endpoint.name, identity, policy, member=member is not endpoint)
    tuned = await work.store.runs.tuned(shape)
    limiter = sizer = None
    if policy.concurrency == "auto":
        remembered = tuned.concurrency
        limiter = Limiter() if remembered is None else Limiter(remembered, remembered=True)
    if policy.batch_size not in {None, 1}:
        first = None if policy.batch_size == "auto" else policy.batch_size
        sizer = Sizer(tuned.batch_size or first)
    presence, stop = work.progress.presence_of(member.name), effort.stop.child()
    effort = replace(effort, presence=presence, stop=stop, limiter=limiter, sizer=sizer)
    effort = replace(effort, machine=Machine(), outage=Outage())
    waiting = await run_session(member, queue, in_flight, effort)
    best = Tuned(None if limiter is None else limiter.best, sizer.size if sizer is not None and sizer.settled else None)
    await work.store.runs.remember(shape, best)
    return waiting


def shape_of(endpoint: str, identity: object, policy: Policy, *, member: bool = False) -> str:
    """Return a key for the best concurrency and batch size: the endpoint, and what shapes its answers.

    All members of an endpoint share one key.
    """
    about = [endpoint, identity, policy.batch_size, *(["member"] if member else [])]
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()
