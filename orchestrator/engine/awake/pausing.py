"""Pausing: ask an endpoint to sleep until it is seen asleep.

If the ledger cannot be written, its last readable state decides who pauses. A process that then seems not to be the
last ends with `PauseUnconfirmed`, so that its guard looks again once the ledger can be written.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import anyio

from orchestrator.domain.errors import EndpointRefused, OrchestratorError, PauseUnconfirmed
from orchestrator.domain.events import PauseAsked, PauseConfirmed, PauseNotConfirmed
from orchestrator.domain.failpoints import reached
from orchestrator.engine.events import UNHEARD
from orchestrator.ports import Metered

if TYPE_CHECKING:
    from orchestrator.domain.endpoint import EndpointState
    from orchestrator.domain.terms import Billed
    from orchestrator.ports import ControlPlane, EventListener
    from orchestrator.store import Store

PAUSE_DEADLINE = 60.0  # the same as `Terms.pause_deadline`, for an endpoint without terms
_ASK_AGAIN = 5  # looks at the state before the pause is requested again
_BILL = 5.0  # seconds to wait for what the provider bills
_SOON = 0.15  # half the seconds until the second look after a request to pause; the time doubles with each look


async def put_to_sleep(
    control: ControlPlane, name: str, events: EventListener = UNHEARD, *, to_zero: bool
) -> EndpointState:
    """Pause an endpoint; return the state in which it was seen asleep. Raises `PauseUnconfirmed` after a deadline."""
    trouble, looks = "it kept running", 0
    with anyio.move_on_after(control.terms.pause_deadline if control.terms else PAUSE_DEADLINE):
        while True:
            try:
                if looks % _ASK_AGAIN == 0:
                    events.emit(PauseAsked(name, to_zero))
                    reached("before pause")
                    await control.pause(to_zero=to_zero)
                    reached("after pause")
                looks += 1
                if (state := await control.state()).asleep:
                    events.emit(PauseConfirmed(name, state, control.status_text))
                    return state
                trouble = f"it is {control.status_text or state}"
            except EndpointRefused as refusal:  # we lack permission, and asking again will not change that
                trouble = str(refusal)
                break
            except Exception as failure:  # noqa: BLE001 - even if it is a bug of ours, the next try may succeed
                trouble = str(failure) or type(failure).__name__
            await anyio.sleep(min(_SOON * 2**looks, control.look_every))
    events.emit(PauseNotConfirmed(name, trouble))
    raise PauseUnconfirmed(
        f"could not confirm that endpoint {name} is paused: {trouble}. It may still cost money: check it now, "
        "then run `orchestrator sweep`"
    )


async def billed_for(control: ControlPlane, store: Store, window: int) -> Billed | None:
    """Return what the provider bills for a window; None if it does not say, or not soon enough to wait for it."""
    if isinstance(control, Metered):
        with anyio.move_on_after(_BILL), suppress(OrchestratorError):
            return await control.billed(await store.windows.label(window))
    return None
