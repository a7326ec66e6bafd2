"""unsendable: requests that no endpoint can be sent are found before one is woken for them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from orchestrator.domain.attempt import Discarded
from orchestrator.domain.batching import Limits
from orchestrator.engine.breaker import Breaker
from orchestrator.engine.desk import Appetite
from orchestrator.ports import ChecksRequests
from orchestrator.store.items import Settlement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.domain.errors import RequestFailed
    from orchestrator.domain.policy import Policy
    from orchestrator.engine.desk import Desk
    from orchestrator.ports import Endpoint

_ONE = Limits(1, None)


async def discard_unsendable(desk: Desk, endpoints: Sequence[Endpoint]) -> None:
    """Discard requests that none of these endpoints can be sent, up to the first one that can.

    So a wrong template wakes nothing. `BreakerTripped` where as many in a row are refused as would end asking, too.
    """
    checking = [endpoint for endpoint in endpoints if isinstance(endpoint, ChecksRequests)]
    if len(checking) < len(endpoints):
        return
    breaker, stop, policy = Breaker(desk.work.policy), desk.work.stop, desk.work.policy
    me = object()
    desk.expect(me, Appetite(1, 1))
    try:
        while not (desk.finished or desk.has_suspects or stop.is_set()):
            batch = desk.take(_ONE)
            if not batch:
                now = time.monotonic()
                if desk.cleared or desk.ready_at(now)[0] > now:
                    return
                await desk.news()
                continue
            refusal = await _refusal(batch[0].request, checking, policy)
            if refusal is None:
                desk.put_back(batch)
                return
            await desk.settle([Settlement(batch[0], Discarded(refusal), 0.0)], breaker.note)
            breaker.trip()
    finally:
        desk.expect(me, None)


async def _refusal(request: bytes, endpoints: Sequence[ChecksRequests], policy: Policy) -> RequestFailed | None:
    """Why no endpoint can be sent the request; None where one can."""
    refusal = None
    for endpoint in endpoints:
        if (refusal := await endpoint.unsendable(request, policy)) is None:
            break
    return refusal
