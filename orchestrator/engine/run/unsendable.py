"""Unsendable requests: find those that no endpoint can be sent before an endpoint is woken for them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from orchestrator.domain.attempt import Discarded
from orchestrator.domain.batching import Limits
from orchestrator.engine.asking.breaker import Breaker
from orchestrator.engine.asking.work_queue import Demand
from orchestrator.ports import ChecksRequests
from orchestrator.store.items import Settlement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.domain.errors import RequestFailed
    from orchestrator.domain.policy import Policy
    from orchestrator.engine.asking.in_flight import InFlight
    from orchestrator.engine.asking.work_queue import WorkQueue
    from orchestrator.ports import Endpoint

_ONE = Limits(1, None)


async def discard_unsendable(queue: WorkQueue, endpoints: Sequence[Endpoint], in_flight: InFlight) -> None:
    """Discard requests that none of these endpoints can be sent, up to the first one that can.

    So a wrong template wakes no endpoint. Raises `BreakerTripped`, and discards none, after as many refusals in a row
    as would also end asking.
    """
    checking = [endpoint for endpoint in endpoints if isinstance(endpoint, ChecksRequests)]
    if len(checking) < len(endpoints):
        return
    breaker, stop, policy = Breaker(queue.work.policy), queue.work.stop, queue.work.policy
    me = object()
    queue.set_demand(me, Demand(1, 1))
    try:
        while not (queue.finished or queue.has_suspects or stop.requested):
            batch = queue.take(_ONE)
            if not batch:
                now = time.monotonic()
                if queue.cleared or queue.ready_at(now)[0] > now:
                    break
                with stop.while_running():
                    await queue.changed()
                continue
            in_flight.send(batch, me)  # while it is checked, something is being done for those that wait for it
            refusal = await _refusal(batch[0].request, checking, policy)
            in_flight.give_up({batch[0].key})
            if refusal is None:
                queue.requeue(batch)
                break
            if judged := breaker.judged([Settlement(batch[0], Discarded(refusal), 0.0)]):
                await queue.settle(judged)
        if held := breaker.release():
            await queue.settle(held)
    finally:
        queue.set_demand(me, None)


async def _refusal(request: bytes, endpoints: Sequence[ChecksRequests], policy: Policy) -> RequestFailed | None:
    """Return why no endpoint can be sent the request; None if one can."""
    refusal = None
    for endpoint in endpoints:
        if (refusal := await endpoint.unsendable(request, policy)) is None:
            break
    return refusal
