"""What a person may look at while a run goes on: what has come of its events so far."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.domain import events
from orchestrator.domain.events import Phase
from orchestrator.domain.phrases import count
from orchestrator.domain.run import Counts, Plan
from orchestrator.domain.waiting import Waiting

if TYPE_CHECKING:
    from orchestrator.domain.attempt import Completed
    from orchestrator.domain.events import RunEvent

_WINDOW = 30.0  # seconds over which the rate is taken


_PHASES = {
    events.WakeBegan: Phase.WAKE,
    events.EndpointAwake: Phase.WORK,
    events.LingerBegan: Phase.LINGER,
    events.LeaveBegan: Phase.PAUSE,
}
_FOREMOST = (Phase.WORK, Phase.WAKE, Phase.LINGER, Phase.PAUSE)


@dataclass(slots=True, eq=False)
class Presence:
    """An endpoint, or one of its members, while a run uses it. `said`: what it says of itself.

    `settled`: items, by its answers. `of`: the endpoint that it is a member of.
    """

    name: str
    of: str | None = None
    phase: Phase = Phase.WAKE
    said: str = ""
    note: str = ""
    troubles: list[str] = field(default_factory=list)  # that are told although nobody looks on
    settled: int = 0
    waiting: Waiting | None = None  # where nothing is asked, and that takes seconds
    awake_since: float | None = None  # on the monotonic clock
    price_per_hour: float | None = None

    def emit(self, event: RunEvent) -> None:
        """Follow an event of this endpoint."""
        self.phase = _PHASES.get(type(event), self.phase)
        match event:
            case events.AwaitingPause():
                self.said = "another run is pausing it"
            case events.AwakeWindowEntered():
                self.awake_since = time.monotonic()
            case events.StateSeen(detail=detail):
                self.said = detail
            case events.PriceSeen(price_per_hour=price):
                self.price_per_hour = price
            case events.ResumeAsked():
                self.said = "resuming"
            case events.SessionLost(why=why):
                self.note = f"endpoint lost ({why}), waking it again"
            case events.RestartBegan():
                self.note = f"endpoint {self.name} fails whatever it is asked: it is started anew"
            case events.MemberRests(why=why, again_in=again_in):
                self.phase, self.said = Phase.WAIT, f"tried again in {again_in:.0f} s: {why}"
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
    """A run in this process as its events tell it.

    `asked`, `completed`, `discarded`, `retried` count what happened in it; `shared`: items among the completed and
    discarded that were not asked, since one with the same request was. The engine counts, since it decides by them.
    """

    step: Phase = Phase.INGEST  # while no endpoint is used
    run: int | None = None
    plan: Plan = field(default_factory=Plan)
    hints: list[str] = field(default_factory=list)  # what else could be done with the items of the plan
    start: Counts = field(default_factory=Counts)  # as the work began
    completed: int = 0
    discarded: int = 0
    retried: int = 0
    asked: int = 0
    shared: int = 0
    tokens_in: int | None = None  # None until a server has said how many
    tokens_out: int | None = None
    note: str = ""
    waiting: Waiting | None = None  # with nothing awake
    present: list[Presence] = field(default_factory=list)
    proofs: list[str] = field(default_factory=list)  # how endpoints were left
    troubles: list[str] = field(default_factory=list)  # with endpoints, and with telling others how it ended
    _samples: deque[tuple[float, int]] = field(default_factory=deque)

    def emit(self, event: RunEvent) -> None:
        """Follow an event."""
        match event:
            case events.RunBegan(run=run):
                self.run = run
            case events.SourceRead(plan=plan, hints=hints):
                self.plan, self.hints = plan, list(hints)
                self.note = "; ".join([str(plan), *hints]) if hints else ""
            case events.WorkBegan(counts=counts):
                self.start, self.step = counts, Phase.WAIT
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
            case events.StopRequested():
                self.note = "stopping: waiting for the answers in flight; once more to cut short"
            case events.DeliveryBegan():
                self.step = Phase.DELIVER
            case events.HookFailed(run=run, hook=hook, why=why):
                self.troubles.append(f"run {run}: could not tell {hook}: {why}")
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
        """The endpoint while the run uses it."""
        return next(presence for presence in self.present if presence.name == endpoint)

    @property
    def servers(self) -> list[Presence]:
        """What is in use now: endpoints, or in their place their members."""
        several = {presence.of for presence in self.present}
        return [presence for presence in self.present if presence.name not in several]

    @property
    def phase(self) -> Phase:
        """Where the run is: with several servers, where the foremost is."""
        phases = {presence.phase for presence in self.servers}
        return next((phase for phase in _FOREMOST if phase in phases), self.step)

    @property
    def waits(self) -> list[Waiting]:
        """What is waited for: with nothing awake, or by endpoints that are kept awake."""
        awake = [presence.waiting for presence in self.servers if presence.waiting is not None]
        return awake if self.waiting is None else [self.waiting, *awake]

    @property
    def idle_members(self) -> list[str]:
        """Members that are not asked now although others are, and what they say."""
        idle = [one for one in self.present if one.of is not None and one.phase is not Phase.WORK and one.said]
        return [f"{member.name}: {member.said}" for member in idle]

    @property
    def total(self) -> int:
        """Items of the run."""
        return self.start.total

    @property
    def settled(self) -> int:
        """Items of the run that need nothing more."""
        return self.start.settled + self.completed + self.discarded

    @property
    def done(self) -> str:
        """` with 512 of 600 items done`, for the end of a run that is cut short; "" before it is known what it has."""
        return f" with {self.settled:,} of {count(self.total, 'item')} done" if self.total else ""

    def count_tokens(self, outcome: Completed) -> None:
        """An answer has come for which the server has said what it took."""
        if outcome.tokens_in is not None:
            self.tokens_in = (self.tokens_in or 0) + outcome.tokens_in
        if outcome.tokens_out is not None:
            self.tokens_out = (self.tokens_out or 0) + outcome.tokens_out

    def rate(self) -> float | None:
        """Items settled per second over the last half minute; None until that can be said."""
        now, settled = time.monotonic(), self.completed + self.discarded
        self._samples.append((now, settled))
        while now - self._samples[0][0] > _WINDOW:
            self._samples.popleft()
        then, before = self._samples[0]
        return (settled - before) / (now - then) if now - then >= 1.0 else None
