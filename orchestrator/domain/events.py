"""What happens during a run, as values. The engine emits them; progress, the log and others listen.

Durations are seconds, moments are timezone-aware UTC datetimes. No event holds a secret: texts of servers have been
masked where they came in (`domain/secrets.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.domain.run import Counts, Plan
    from orchestrator.domain.waiting import Waiting


class Phase(StrEnum):
    """Where a run is."""

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
    """A process of this number in the ledger executes the run from now on."""

    run: int
    job: str
    process: int


@dataclass(frozen=True, slots=True)
class SourceRead:
    """So much of the source has been read. `complete`: all of it. `hints`: what else could be done with the items."""

    plan: Plan
    complete: bool = False
    hints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkBegan:
    """Something is left to ask."""

    counts: Counts


@dataclass(frozen=True, slots=True)
class RunWindowClosed:
    """The policy's window is closed; nothing is asked before `opens_at`."""

    window: str
    opens_at: datetime


@dataclass(frozen=True, slots=True)
class RunWindowOpened:
    """The policy's window is open again."""


@dataclass(frozen=True, slots=True)
class RunHeld:
    """A person holds the run; its endpoints are paused."""

    run: int


@dataclass(frozen=True, slots=True)
class RunReleased:
    """The run goes on."""

    run: int


@dataclass(frozen=True, slots=True)
class WaitBegan:
    """Nothing can be asked before `until`: of `endpoint`, or, with nothing awake, of any."""

    items: int
    until: datetime
    why: str
    endpoint: str | None = None

    @classmethod
    def of(cls, waiting: Waiting, endpoint: str | None = None) -> WaitBegan:
        """What is waited for, as an event."""
        return cls(waiting.items, datetime.fromtimestamp(waiting.until, UTC), waiting.why, endpoint)


@dataclass(frozen=True, slots=True)
class WaitEnded:
    """What was waited for is over."""

    endpoint: str | None = None


@dataclass(frozen=True, slots=True)
class LedgerBusy:
    """A write waits for another process, which holds the ledger's write lock. Emitted by whichever thread writes."""

    what: str


@dataclass(frozen=True, slots=True)
class StopRequested:
    """A signal asked the run to stop. `grace`: seconds that answers in flight are given."""

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
    """A hook has been told how the run ended."""

    run: int
    hook: str


@dataclass(frozen=True, slots=True)
class HookFailed:
    """A hook could not be told how the run ended."""

    run: int
    hook: str
    why: str


@dataclass(frozen=True, slots=True)
class RunEnded:
    """This process has ended its part of the run. `outcome`: finished, stopped or failed."""

    run: int
    outcome: str
    why: str = ""


# -- one endpoint -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SessionBegan:
    """The run begins to use the endpoint, or one of its members: `of` names the endpoint then.

    From now on, the `endpoint` of an event may be that of a member.
    """

    endpoint: str
    of: str | None = None


@dataclass(frozen=True, slots=True)
class WakeBegan:
    """The endpoint is to be awake: it is looked at, and resumed if it sleeps."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class AwaitingPause:
    """Another run is pausing the endpoint; this one enters afterwards."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class AwakeWindowEntered:
    """The run has a hold on the endpoint: from now on its time is the run's, too."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class StateSeen:
    """What a look at the endpoint showed; `detail` is in the provider's own words."""

    endpoint: str
    state: str
    detail: str


@dataclass(frozen=True, slots=True)
class PriceSeen:
    """What the endpoint costs in dollars per hour; None where nobody says."""

    endpoint: str
    price_per_hour: float | None


@dataclass(frozen=True, slots=True)
class ResumeAsked:
    """The provider is asked to resume the endpoint; from now on it may cost money."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class EndpointAwake:
    """The endpoint answers, `after` so many seconds of waking."""

    endpoint: str
    after: float


@dataclass(frozen=True, slots=True)
class SessionLost:
    """The endpoint is gone. It is tried again in so many seconds; None: no more."""

    endpoint: str
    why: str
    losses: int
    again_in: float | None


@dataclass(frozen=True, slots=True)
class MemberRests:
    """A member does not work, although others do. It is tried again in so many seconds."""

    endpoint: str
    why: str
    again_in: float


@dataclass(frozen=True, slots=True)
class RestartBegan:
    """A server of ours fails whatever it is asked, and is started anew."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class GuardReplaced:
    """The endpoint's guard has died. `trouble`: why another one cannot be started yet; "" where one watches."""

    endpoint: str
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class LingerBegan:
    """Everything is settled, and the endpoint is kept awake for a next run."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class BudgetReached:
    """A budget is spent: nothing more is asked of the endpoint."""

    endpoint: str
    why: str


@dataclass(frozen=True, slots=True)
class LeaveBegan:
    """The run needs the endpoint no more, and sees to how it is left."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class PauseAsked:
    """The provider is asked to pause the endpoint, or to scale it to zero."""

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
    """The endpoint was not seen asleep before the deadline: it may still cost money."""

    endpoint: str
    why: str


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """The run uses the endpoint no more. `proof`: how it was left, and when that was seen."""

    endpoint: str
    proof: str | None


@dataclass(frozen=True, slots=True)
class EndpointDropped:
    """The endpoint, or a member, is of no more use to the run."""

    endpoint: str
    why: str


@dataclass(frozen=True, slots=True)
class DebtSwept:
    """A pause that a dead process owed was paid (`proof`), or is still owed (`failure`)."""

    endpoint: str
    proof: str | None
    failure: str | None


# -- requests ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """One attempt at an item failed. `retry_in`: seconds until the next one; None where the item is discarded.

    `number`: the item's in the ledger.
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
    """So many outcomes were committed in one transaction. `left`: items of the run that are not settled."""

    completed: int
    discarded: int
    to_retry: int
    left: int

    def __add__(self, later: ItemsSettled) -> ItemsSettled:
        return ItemsSettled(
            self.completed + later.completed,
            self.discarded + later.discarded,
            self.to_retry + later.to_retry,
            later.left,
        )


@dataclass(frozen=True, slots=True)
class CooldownBegan:
    """The endpoint refuses requests, and is left alone for so many seconds."""

    endpoint: str
    seconds: float


@dataclass(frozen=True, slots=True)
class CooldownEnded:
    """The endpoint has answered again after a cooldown."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class LimitChanged:
    """Another number of requests may be in flight. `why`: what set it."""

    endpoint: str
    before: int
    now: int
    why: str


@dataclass(frozen=True, slots=True)
class BatchSizeChanged:
    """Another number of items goes into one request. `why`: what set it."""

    endpoint: str
    before: int
    now: int
    why: str


RunEvent = (
    RunBegan
    | SourceRead
    | WorkBegan
    | RunWindowClosed
    | RunWindowOpened
    | RunHeld
    | RunReleased
    | WaitBegan
    | WaitEnded
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
