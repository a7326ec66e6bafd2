"""The events of a run, as values. The engine emits them; progress, the log and others subscribe.

Durations are in seconds, moments are timezone-aware UTC datetimes. No event contains a secret: texts from servers are
masked when they arrive (`domain/secrets.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.domain.estimate import Estimate
    from orchestrator.domain.run import Counts, Plan
    from orchestrator.domain.tail import HandedOver
    from orchestrator.domain.waiting import Waiting


class Phase(StrEnum):
    """The phase that a run is in."""

    INGEST = "reading"
    HELD = "held"
    WAIT = "waiting"
    WAKE = "waking"
    WORK = "asking"
    LINGER = "keeping awake"
    PAUSE = "pausing"
    DELIVER = "delivering"
    DONE = "done"


# -- the run ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunBegan:
    """A process began to execute the run. `process`: its number in the ledger."""

    run: int
    job: str
    process: int


@dataclass(frozen=True, slots=True)
class SourceRead:
    """A part of the source was read, or all of it (`complete`). `hints`: suggestions for the user about the items."""

    plan: Plan
    complete: bool = False
    hints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkBegan:
    """The run has items left to ask."""

    counts: Counts


@dataclass(frozen=True, slots=True)
class RestEstimated:
    """The canary is settled. `estimate`: of asking the other items."""

    items: int
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class TailHandedOver:
    """What is left is asked of the fallback, because that costs less than staying awake for it."""

    left: HandedOver


@dataclass(frozen=True, slots=True)
class RunWindowClosed:
    """The policy's window has closed; nothing is asked before `opens_at`."""

    window: str
    opens_at: datetime


@dataclass(frozen=True, slots=True)
class RunWindowOpened:
    """The policy's window is open again."""


@dataclass(frozen=True, slots=True)
class RunHeld:
    """The user holds the run; its endpoints are paused."""

    run: int


@dataclass(frozen=True, slots=True)
class RunReleased:
    """The user released the run, and it continues."""

    run: int


@dataclass(frozen=True, slots=True)
class WaitBegan:
    """Nothing can be asked before `until`. `endpoint`: the one concerned; None for all of them, with none awake."""

    items: int
    until: datetime
    why: str
    endpoint: str | None = None

    @classmethod
    def of(cls, waiting: Waiting, endpoint: str | None = None) -> WaitBegan:
        """Return the event for a wait."""
        return cls(waiting.items, datetime.fromtimestamp(waiting.until, UTC), waiting.why, endpoint)


@dataclass(frozen=True, slots=True)
class WaitEnded:
    """A wait is over."""

    endpoint: str | None = None


@dataclass(frozen=True, slots=True)
class RolloutsIdle:
    """`rollouts` functions run that neither ask nor return, and nobody else asks; that of `item_id` is one of them.

    0 rollouts: something is asked again.
    """

    rollouts: int
    item_id: str | None = None


@dataclass(frozen=True, slots=True)
class LedgerBusy:
    """A write waits because another process holds the ledger's write lock. Emitted from the thread that writes."""

    what: str


@dataclass(frozen=True, slots=True)
class StopRequested:
    """A signal asked the run to stop. `grace`: seconds left for requests in flight to be answered."""

    grace: float


@dataclass(frozen=True, slots=True)
class DeliveryBegan:
    """Everything is settled; the output is being written."""

    output: str | None


@dataclass(frozen=True, slots=True)
class Delivered:
    """The output is in place."""

    output: str | None


@dataclass(frozen=True, slots=True)
class HookNotified:
    """A hook was notified of how the run ended."""

    run: int
    hook: str


@dataclass(frozen=True, slots=True)
class HookFailed:
    """A hook could not be notified of how the run ended."""

    run: int
    hook: str
    why: str


@dataclass(frozen=True, slots=True)
class RunEnded:
    """This process has finished with the run. `outcome`: finished, stopped or failed."""

    run: int
    outcome: str
    why: str = ""


# -- one endpoint -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SessionBegan:
    """The run begins to use an endpoint, or a member of the endpoint `of`.

    From now on, the `endpoint` of an event may be the name of this member.
    """

    endpoint: str
    of: str | None = None


@dataclass(frozen=True, slots=True)
class WakeBegan:
    """The run begins to wake the endpoint: it checks the state and resumes the endpoint if it is asleep."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class AwaitingPause:
    """Another run is pausing the endpoint; this run enters the awake window afterwards."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class AwakeWindowEntered:
    """The run has a hold on the endpoint and shares the cost of its time from now on."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class StateSeen:
    """The state of the endpoint was read; `detail` is the provider's own text."""

    endpoint: str
    state: str
    detail: str


@dataclass(frozen=True, slots=True)
class PriceSeen:
    """The price of the endpoint in dollars per hour became known; None if it is unknown."""

    endpoint: str
    price_per_hour: float | None


@dataclass(frozen=True, slots=True)
class ResumeAsked:
    """The provider was asked to resume the endpoint, which may cost money from now on."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class EndpointAwake:
    """The endpoint answers, `after` this many seconds of waking."""

    endpoint: str
    after: float


@dataclass(frozen=True, slots=True)
class SessionLost:
    """The endpoint stopped answering. `again_in`: seconds until it is tried again; None if it is not.

    `requests`: how many were in flight, and are asked again without counting an attempt.
    """

    endpoint: str
    why: str
    losses: int
    again_in: float | None
    requests: int = 0


@dataclass(frozen=True, slots=True)
class MemberRests:
    """A member does not work, although others do. `again_in`: seconds until it is tried again."""

    endpoint: str
    why: str
    again_in: float


@dataclass(frozen=True, slots=True)
class RestartBegan:
    """A server that we started fails every request and is restarted."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class GuardReplaced:
    """The endpoint's guard has died. `trouble`: why no other one can be started yet; "" if one has replaced it."""

    endpoint: str
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class LingerBegan:
    """Everything is settled, and the endpoint is kept awake for the next run."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class BudgetReached:
    """A budget is spent: the endpoint gets no more requests."""

    endpoint: str
    why: str


@dataclass(frozen=True, slots=True)
class LeaveBegan:
    """The run no longer needs the endpoint and begins to leave it."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class PauseAsked:
    """The provider was asked to pause the endpoint, or to scale it to zero (`to_zero`)."""

    endpoint: str
    to_zero: bool


@dataclass(frozen=True, slots=True)
class PauseConfirmed:
    """The endpoint was seen asleep."""

    endpoint: str
    state: str
    detail: str


@dataclass(frozen=True, slots=True)
class PauseNotConfirmed:
    """The pause was not confirmed before the deadline: the endpoint may still cost money."""

    endpoint: str
    why: str


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """The run has stopped using the endpoint. `proof`: how it was left, and when that was confirmed."""

    endpoint: str
    proof: str | None


@dataclass(frozen=True, slots=True)
class EndpointDropped:
    """The run gives up on the endpoint, or on a member of it."""

    endpoint: str
    why: str


@dataclass(frozen=True, slots=True)
class DebtSwept:
    """A pause owed by a dead process was confirmed (`proof`), or is still owed (`failure`)."""

    endpoint: str
    proof: str | None
    failure: str | None


# -- requests ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """One attempt at an item failed. `retry_in`: seconds until the next one; None if the item is discarded.

    `number`: the number of the item in the ledger.
    """

    endpoint: str
    number: int
    item: str
    attempt: int
    kind: str
    status: int | None
    message: str
    retry_in: float | None


@dataclass(frozen=True, slots=True)
class ItemsSettled:
    """Outcomes were committed in one transaction. `left`: items of the run that are not settled yet.

    `keys`: the completed items, as the ledger numbers them. A sum has none.
    """

    completed: int
    discarded: int
    to_retry: int
    left: int
    keys: tuple[int, ...] = ()

    def __add__(self, later: ItemsSettled) -> ItemsSettled:
        return ItemsSettled(
            self.completed + later.completed,
            self.discarded + later.discarded,
            self.to_retry + later.to_retry,
            later.left,
        )


@dataclass(frozen=True, slots=True)
class CooldownBegan:
    """The endpoint refuses requests and gets none for this many seconds."""

    endpoint: str
    seconds: float


@dataclass(frozen=True, slots=True)
class CooldownEnded:
    """The endpoint answered again after a cooldown."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class LimitChanged:
    """The number of requests that may be in flight changed. `why`: the reason."""

    endpoint: str
    before: int
    now: int
    why: str


@dataclass(frozen=True, slots=True)
class BatchSizeChanged:
    """The number of items in one request changed. `why`: the reason."""

    endpoint: str
    before: int
    now: int
    why: str


RunEvent = (
    RunBegan
    | SourceRead
    | WorkBegan
    | RestEstimated
    | TailHandedOver
    | RunWindowClosed
    | RunWindowOpened
    | RunHeld
    | RunReleased
    | WaitBegan
    | WaitEnded
    | RolloutsIdle
    | LedgerBusy
    | StopRequested
    | DeliveryBegan
    | Delivered
    | HookNotified
    | HookFailed
    | RunEnded
    | SessionBegan
    | WakeBegan
    | AwaitingPause
    | AwakeWindowEntered
    | StateSeen
    | PriceSeen
    | ResumeAsked
    | EndpointAwake
    | SessionLost
    | MemberRests
    | RestartBegan
    | GuardReplaced
    | LingerBegan
    | BudgetReached
    | LeaveBegan
    | PauseAsked
    | PauseConfirmed
    | PauseNotConfirmed
    | SessionEnded
    | EndpointDropped
    | DebtSwept
    | AttemptFailed
    | ItemsSettled
    | CooldownBegan
    | CooldownEnded
    | LimitChanged
    | BatchSizeChanged
)
