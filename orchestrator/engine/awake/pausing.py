"""Pausing: an endpoint is asked to sleep until it is seen asleep."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from orchestrator.domain.errors import EndpointRefused, PauseUnconfirmed
from orchestrator.domain.events import PauseAsked, PauseConfirmed, PauseNotConfirmed
from orchestrator.domain.failpoints import reached
from orchestrator.engine.events import UNHEARD

if TYPE_CHECKING:
    from orchestrator.domain.endpoint import EndpointState
    from orchestrator.ports import ControlPlane, EventListener

PAUSE_DEADLINE = 60.0  # the same as `Terms.pause_deadline`, for an endpoint without terms
_ASK_AGAIN = 5  # looks that a request to pause is given
_SOON = 0.15  # half the seconds to the second look after a request to pause, a quarter of those to the third ...


async def put_to_sleep(
    control: ControlPlane, name: str, events: EventListener = UNHEARD, *, to_zero: bool
) -> EndpointState:
    """Seen asleep, not merely asked; gives what was seen. `PauseUnconfirmed` when its deadline has passed."""
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
                    events.emit(PauseConfirmed(name, state, control.said))
                    return state
                trouble = f"it is {control.said or state}"
            except EndpointRefused as refusal:  # we may not, and asking again will not change that
                trouble = str(refusal)
                break
            except Exception as failure:  # noqa: BLE001 - even where it is our own mistake, the next try may succeed
                trouble = str(failure) or type(failure).__name__
            await anyio.sleep(min(_SOON * 2**looks, control.look_every))
    events.emit(PauseNotConfirmed(name, trouble))
    raise PauseUnconfirmed(
        f"endpoint {name} was not seen paused: {trouble}. It may still cost money: look at it now, "
        "then run `orchestrator sweep`"
    )
