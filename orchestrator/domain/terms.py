"""Terms: how an endpoint that is billed while awake is used and left, and what the time was spent on."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from orchestrator.domain.endpoint import EndpointState

if TYPE_CHECKING:
    from collections.abc import Mapping


class Pause(StrEnum):
    """What happens to the endpoint when the last run that uses it is done."""

    IF_RESUMED = "if_resumed"  # leave it as it was: running stays running, scaled to zero is scaled to zero again
    ALWAYS = "always"
    NEVER = "never"
    SCALE_TO_ZERO = "scale_to_zero"  # always scale it to zero; the next request may wake it


@dataclass(frozen=True, slots=True)
class Terms:
    """What the ledger has to know about an endpoint that keeps costing money until it is paused.

    `endpoint`: its name in the ledger, the same for every job and process that uses it.
    `pause_with`: what any other process needs to pause it: its kind and its settings, as JSON. Never a secret.
    `linger`: seconds for which it is kept awake for the next run. `price_per_hour`: dollars, if the user has set it.
    `pause_deadline`: seconds from the first pause request until the pause must be confirmed.
    """

    endpoint: str
    pause_with: Mapping[str, object] = field(default_factory=dict)
    pause: Pause = Pause.IF_RESUMED
    linger: float = 0.0
    price_per_hour: float | None = None
    pause_deadline: float = 60.0

    @property
    def owed_if_found(self) -> bool:
        """Whether a pause is owed even if the endpoint was already running."""
        return self.pause in {Pause.ALWAYS, Pause.SCALE_TO_ZERO}

    @property
    def owed_if_resumed(self) -> bool:
        """Whether a pause is owed after we have resumed the endpoint."""
        return self.pause is not Pause.NEVER

    def to_zero(self, found: EndpointState) -> bool:
        """Whether the endpoint is scaled to zero rather than paused. `found`: its state before the run."""
        return self.pause is Pause.SCALE_TO_ZERO or (
            self.pause is Pause.IF_RESUMED and found is EndpointState.SCALED_TO_ZERO
        )


@dataclass(frozen=True, slots=True)
class LastingHold:
    """A hold that outlives its process: made by a command of the user, or by a job that never pauses.

    `kept_by`: the user's name, or the job. `expires_at`: when it ends by itself; None if it lasts until the endpoint is
    paused.
    """

    kept_by: str
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class Billed:
    """What the provider bills for one awake window, by its own clock and price list; None if it does not say.

    `seconds`: those of all servers added up.
    """

    seconds: float
    dollars: float | None

    def __add__(self, other: Billed) -> Billed:
        known = None if self.dollars is None or other.dollars is None else self.dollars + other.dollars
        return Billed(self.seconds + other.seconds, known)


@dataclass(slots=True)
class Spent:
    """Seconds for which an endpoint was awake for one run, by what they were spent on."""

    cold_start: float = 0.0  # from the first resume until it answered
    work: float = 0.0
    idle: float = 0.0  # awake without requests
    pausing: float = 0.0  # until it was seen paused

    @property
    def seconds(self) -> float:
        """The total."""
        return self.cold_start + self.work + self.idle + self.pausing

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.cold_start + other.cold_start,
            self.work + other.work,
            self.idle + other.idle,
            self.pausing + other.pausing,
        )

    def cost(self, price_per_hour: float | None) -> float | None:
        """Return the cost in dollars; None if the price is not known."""
        return cost_of(self.seconds, price_per_hour)


def cost_of(seconds: float, price_per_hour: float | None) -> float | None:
    """Return the cost of the seconds in dollars; None if the price is not known."""
    return None if price_per_hour is None else seconds * price_per_hour / 3600
