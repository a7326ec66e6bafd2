"""The progress of a run, derived from its events, as shown to the user."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.domain import events
from orchestrator.domain.charges import Charge
from orchestrator.domain.events import Phase
from orchestrator.domain.latency_histogram import LatencyHistogram
from orchestrator.domain.phrases import count
from orchestrator.domain.run import Counts, Plan
from orchestrator.domain.running_totals import Total, TotalKey, increase, latency_totals
from orchestrator.domain.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.domain.attempt import Completed
    from orchestrator.domain.events import RunEvent

_WINDOW = 30.0  # seconds over which the rate is averaged


_PHASES = {
    events.WakeBegan: Phase.WAKE,
    events.EndpointAwake: Phase.WORK,
    events.LingerBegan: Phase.LINGER,
    events.LeaveBegan: Phase.PAUSE,
}
_FOREMOST = (Phase.WORK, Phase.WAKE, Phase.LINGER, Phase.PAUSE)


@dataclass(slots=True, eq=False)
class Presence:
    """An endpoint, or one of its members, while a run uses it. `said`: its state in its own words.

    `settled`: items settled by its answers. `of`: the endpoint that it is a member of.
    """

    name: str
    of: str | None = None
    phase: Phase = Phase.WAKE
    status_text: str = ""
    note: str = ""
    troubles: list[str] = field(default_factory=list)  # reported at the end, even if nobody watches
    settled: int = 0
    waiting: Waiting | None = None  # if nothing is asked for some seconds
    awake_since: float | None = None  # on the monotonic clock
    price_per_hour: float | None = None

    def emit(self, event: RunEvent) -> None:
        """Apply an event of this endpoint."""
        self.phase = _PHASES.get(type(event), self.phase)
        match event:
            case events.AwaitingPause():
                self.status_text = "another run is pausing it"
            case events.AwakeWindowEntered():
                self.awake_since = time.monotonic()
            case events.StateSeen(detail=detail):
                self.status_text = detail
            case events.PriceSeen(price_per_hour=price):
                self.price_per_hour = price
            case events.ResumeAsked():
                self.status_text = "resuming"
            case events.SessionLost(why=why):
                self.note = f"endpoint lost ({why}), waking it again"
            case events.RestartBegan():
                self.note = f"endpoint {self.name} fails every request and is being restarted"
            case events.MemberRests(why=why, again_in=again_in):
                self.phase, self.status_text = Phase.WAIT, f"tried again in {again_in:.0f} s: {why}"
                trouble = f"{self.name} was left out for a while: {why}"
                self.troubles += [trouble] if trouble not in self.troubles else []
            case events.GuardReplaced(trouble=trouble):
                self.note = f"the guard of {self.name} was killed"
                self.note += (
                    f", and another one cannot be started yet: {trouble}" if trouble else "; another one watches"
                )
                self.troubles += [self.note] if self.note not in self.troubles else []
            case events.WaitBegan(items=items, until=until, why=why):
                self.waiting = Waiting(items, until.timestamp(), why)
            case events.WaitEnded():
                self.waiting = None
            case _:
                pass


@dataclass(slots=True)
class Progress:
    """The progress of a run in this process, derived from its events.

    `asked`, `completed`, `discarded` and `retried` count what happened in this process. `shared`: settled items that
    were not asked because an item with the same request was. The engine updates these counts and decides by them.
    `failures`: discards and retries by cause. `lost`, `statuses`: as in `Reading`. `counted`: what the
    ledger's running totals have of all this.
    """

    step: Phase = Phase.INGEST  # the phase while no endpoint is used
    run: int | None = None
    plan: Plan = field(default_factory=Plan)
    hints: list[str] = field(default_factory=list)  # suggestions concerning the items of the plan
    start: Counts = field(default_factory=Counts)  # when the work began
    completed: int = 0
    discarded: int = 0
    retried: int = 0
    asked: int = 0
    shared: int = 0
    failures: Counter[TotalKey] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    latency: LatencyHistogram = field(default_factory=LatencyHistogram)
    commits: int = 0
    commit_seconds: float = 0.0
    counted: dict[TotalKey, float] = field(default_factory=dict)
    charges: dict[str, Charge] = field(default_factory=dict)  # by endpoint, if it charges by use
    charged: dict[str, Charge] = field(default_factory=dict)  # what the ledger has of these
    tokens_in: int | None = None  # None until a server has reported tokens
    tokens_out: int | None = None
    note: str = ""
    waiting: Waiting | None = None  # while no endpoint is awake
    present: list[Presence] = field(default_factory=list)
    proofs: list[str] = field(default_factory=list)  # how endpoints were left
    troubles: list[str] = field(default_factory=list)  # problems with endpoints and with hooks
    _idle_rollouts: events.RolloutsIdle | None = None
    _samples: deque[tuple[float, int]] = field(default_factory=deque)

    def emit(self, event: RunEvent) -> None:
        """Apply an event."""
        match event:
            case events.RunBegan(run=run):
                self.run = run
            case events.SourceRead(plan=plan, hints=hints):
                self.plan, self.hints = plan, list(hints)
                self.note = "; ".join([str(plan), *hints]) if hints else ""
            case events.WorkBegan(counts=counts):
                self.start, self.step = counts, Phase.WAIT
            case events.RestEstimated(items=items, estimate=estimate):
                self.note = f"the other {count(items, 'item')}: {estimate}"
            case events.TailHandedOver(left=left):
                self.note = str(left)
                self.proofs.append(str(left))
            case events.RunWindowClosed(window=window, opens_at=opens_at):
                self.step = Phase.WAIT
                until = f"{opens_at:%Y-%m-%d %H:%M:%S} UTC"
                self.note = f"outside its window ({window}): waiting until {until}, nothing is awake for it"
            case events.RunHeld(run=run_id):
                self.step, self.note = Phase.HELD, f"`orchestrator go {run_id}` lets it go on"
            case events.RunReleased():
                self.step, self.note = Phase.WAIT, ""
            case events.RunWindowOpened():
                self.note = ""
            case events.WaitBegan(endpoint=None, items=items, until=until, why=why):
                self.step, self.waiting = Phase.WAIT, Waiting(items, until.timestamp(), why)
            case events.WaitEnded(endpoint=None):
                self.waiting = None
            case events.RolloutsIdle():
                self._idle_rollouts = event
            case events.StopRequested():
                self.note = "stopping: waiting for the answers in flight; once more to cut short"
            case events.DeliveryBegan():
                self.step = Phase.DELIVER
            case events.HookFailed(run=run, hook=hook, why=why):
                self.troubles.append(f"run {run}: could not notify {hook}: {why}")
            case events.RunEnded(outcome="finished"):
                self.step = Phase.DONE
            case events.SessionBegan(endpoint=name, of=of):
                self.present.append(Presence(name, of))
            case events.SessionEnded(endpoint=name, proof=proof):
                presence = self.presence_of(name)
                self.present.remove(presence)
                if presence.of is not None:
                    self.presence_of(presence.of).settled += presence.settled
                self.troubles += presence.troubles
                self.proofs += [proof] if proof is not None else []
            case _:
                for presence in self.present:
                    if presence.name == getattr(event, "endpoint", None):
                        presence.emit(event)

    def presence_of(self, endpoint: str) -> Presence:
        """Return the presence of an endpoint that the run uses now."""
        return next(presence for presence in self.present if presence.name == endpoint)

    @property
    def servers(self) -> list[Presence]:
        """What is in use now: endpoints, or their members instead."""
        several = {presence.of for presence in self.present}
        return [presence for presence in self.present if presence.name not in several]

    @property
    def phase(self) -> Phase:
        """The phase of the run; with several servers, of the one that is furthest."""
        phases = {presence.phase for presence in self.servers}
        return next((phase for phase in _FOREMOST if phase in phases), self.step)

    @property
    def waits(self) -> list[Waiting]:
        """What the run waits for: with no endpoint awake, or for each endpoint that is kept awake."""
        awake = [presence.waiting for presence in self.servers if presence.waiting is not None]
        return awake if self.waiting is None else [self.waiting, *awake]

    @property
    def idle_rollouts(self) -> str:
        """Which functions keep the run although nothing is asked; "" if something is."""
        match self._idle_rollouts:
            case None | events.RolloutsIdle(0):
                return ""
            case events.RolloutsIdle(1, item_id):
                return f"a rollout neither asks nor returns: that of item {item_id}"
            case events.RolloutsIdle(rollouts, item_id):
                return f"{rollouts:,} rollouts neither ask nor return, for example that of item {item_id}"

    @property
    def reasons(self) -> list[str]:
        """Why nothing, or not everything, is asked now."""
        idle = [self.idle_rollouts] if self.idle_rollouts else []
        return [*map(str, self.waits), *self.idle_members, *idle]

    @property
    def idle_members(self) -> list[str]:
        """Members that are not asked now although others are, each with its state."""
        idle = [one for one in self.present if one.of is not None and one.phase is not Phase.WORK and one.status_text]
        return [f"{member.name}: {member.status_text}" for member in idle]

    @property
    def price_per_hour(self) -> float | None:
        """Dollars per hour of all endpoints that are awake and have a known price; None if none has."""
        known = [one.price_per_hour for one in self.present if one.price_per_hour is not None]
        return sum(known) if known else None

    @property
    def total(self) -> int:
        """The number of items of the run."""
        return self.start.total

    @property
    def settled(self) -> int:
        """The number of items of the run that are settled."""
        return self.start.settled + self.completed + self.discarded

    @property
    def done(self) -> str:
        """` with 512 of 600 items done`, to end a message about a run that was cut short; "" if that is not known."""
        return f" with {self.settled:,} of {count(self.total, 'item')} done" if self.total else ""

    def count_tokens(self, outcome: Completed) -> None:
        """Count the tokens that the server has reported for an answer."""
        if outcome.tokens_in is not None:
            self.tokens_in = (self.tokens_in or 0) + outcome.tokens_in
        if outcome.tokens_out is not None:
            self.tokens_out = (self.tokens_out or 0) + outcome.tokens_out

    def charge(self, endpoint: str, charge: Charge) -> None:
        """Add what an endpoint charges for an answer."""
        self.charges[endpoint] = self.charges.get(endpoint, Charge()) + charge

    def uncharged(self) -> dict[str, Charge]:
        """Return the charges that the ledger does not have yet, by endpoint."""
        new = {name: charge - self.charged.get(name, Charge()) for name, charge in self.charges.items()}
        return {name: charge for name, charge in new.items() if charge.requests}

    def uncounted(self) -> dict[TotalKey, float]:
        """Return what the ledger's running totals do not have yet."""
        totals: dict[TotalKey, float] = {
            (Total.REQUESTS, ""): self.asked,
            (Total.TOKENS, "in"): self.tokens_in or 0,
            (Total.TOKENS, "out"): self.tokens_out or 0,
            (Total.COMPLETED, ""): self.completed,
            (Total.COMMITS, ""): self.commits,
            (Total.COMMIT_SECONDS, ""): self.commit_seconds,
        }
        totals |= self.failures
        totals |= latency_totals(self.latency)
        totals |= {(Total.STATUS, status): requests for status, requests in self.statuses.items()}
        totals |= {(Total.LOST, cause): requests for cause, requests in self.lost.items()}
        return increase(self.counted, totals)

    def count(self, increase_: Mapping[TotalKey, float]) -> None:
        """Record that the running totals have been increased by this."""
        for key, by in increase_.items():
            self.counted[key] = self.counted.get(key, 0) + by

    def rate(self) -> float | None:
        """Return the items settled per second over the last half minute; None until there is enough data."""
        now, settled = time.monotonic(), self.completed + self.discarded
        self._samples.append((now, settled))
        while now - self._samples[0][0] > _WINDOW:
            self._samples.popleft()
        then, before = self._samples[0]
        return (settled - before) / (now - then) if now - then >= 1.0 else None
