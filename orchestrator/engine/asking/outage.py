"""Outage: tells an endpoint that fails whatever it is asked from requests that fail for their own sake."""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

import anyio

from orchestrator.domain.errors import EndpointLost, EndpointRefused, FailureKind, RequestFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    Ask = Callable[[Sequence[bytes]], Awaitable[Sequence[object]]]

KNOWN = 8  # answered requests that are remembered: one of them may fail by now, for its own sake
_SHORTEST, _SLOWER = 10.0, 10  # the probe's time-out: seconds at least, and times as long as its request took before
_MAY_BE_THE_SERVER = frozenset(
    {
        FailureKind.UNAVAILABLE,
        FailureKind.TIMEOUT,
        FailureKind.CONNECTION,
        FailureKind.GARBLED,
        FailureKind.DUBIOUS,
        FailureKind.RATE_LIMITED,
    }
)
_UNAVAILABLE, _NOT_THERE = 503, {502, 503}


@dataclass(frozen=True, slots=True)
class Answered:
    """A request that was answered, after so many seconds."""

    request: bytes
    seconds: float


@dataclass(slots=True)
class Outage:
    """What an endpoint that had worked is found out to be; kept for as long as a run uses it, over reconnections.

    A failure that may be the server's is held back, with its place in flight. It is the item's once a request that was
    begun after it has succeeded. Where nothing else is on its way, one that was answered before is asked once more: if
    it fails as well, the endpoint is lost, and no item pays. Where nothing has ever been answered, it is lost if it
    says itself that it is not there (502, 503).
    """

    _known: deque[Answered] = field(default_factory=lambda: deque(maxlen=KNOWN))  # a probe asks the first
    worked: bool = False  # whether one was answered while this run used it: URL, token and model are right
    lasts: bool = False  # whether the endpoint is known to be down
    _on_their_way: int = 0  # requests whose outcome is not known
    _probing: bool = False
    _success_begun: float = -inf
    _changed: anyio.Event = field(default_factory=anyio.Event)
    _seen: Counter[int] = field(default_factory=Counter)  # items that were in flight when the endpoint was lost

    @property
    def known(self) -> Answered | None:
        """A request that was answered; another one each time that it failed as a probe."""
        return self._known[0] if self._known else None

    def recall(self, requests: Sequence[bytes]) -> None:
        """These were answered in an earlier process."""
        self._known.extend(Answered(request, inf) for request in requests)

    async def ask(self, requests: Sequence[bytes], ask: Ask, probe: Ask) -> Sequence[object]:
        """What `ask` gives. `EndpointLost` where it fails, and `probe` with it: whatever is asked now would."""
        begun, failure = time.monotonic(), None
        self._on_their_way += 1
        try:
            answers = await ask(requests)
        except RequestFailed as failed:
            failure = failed
        finally:
            self._on_their_way -= 1
            self._tell()
        if failure is None:
            self._succeeded(begun, requests[0], answers[0])
            return answers
        failed_at = time.monotonic()
        while self._may_be_down(failure) and self._success_begun < failed_at:
            if self._on_their_way or self._probing:
                await self._changed.wait()
            elif self.known is None and len(requests) == 1:
                self.lasts = True
                raise _lost(failure)
            else:  # of a first batch, any item: the one to blame is not chosen each time
                await self.probe(probe, failure, self.known or Answered(random.choice(requests), inf))
        raise failure

    async def probe(self, ask: Ask, failure: RequestFailed | None = None, known: Answered | None = None) -> None:
        """Ask once more what has been answered before. `EndpointLost` where it fails: after this failure, if any."""
        known = known or self.known
        if known is None:
            return
        begun, self._probing = time.monotonic(), True
        try:
            with anyio.fail_after(max(_SHORTEST, _SLOWER * known.seconds)):
                (answer,) = await ask([known.request])
            if isinstance(answer, RequestFailed):
                raise answer
        except (RequestFailed, EndpointRefused, TimeoutError) as trouble:
            if isinstance(trouble, EndpointRefused) and not self.worked:
                raise
            if _is_busy(trouble):
                self._success_begun = begun
                return
            while self._on_their_way and self._success_begun < begun:
                await self._changed.wait()
            if self._success_begun >= begun:  # others are answered: the probe was one request too many
                return
            self.lasts = True
            self._known.rotate(-1)
            raise _lost(failure or trouble) from trouble
        finally:
            self._probing = False
            self._tell()
        self.lasts, self.worked, self._success_begun = False, True, begun

    def blames(self, keys: Sequence[int]) -> set[int]:
        """Those of the items in flight that were so when the endpoint was lost before: one of them may be why."""
        if self.known is None:  # it was never there
            return set()
        self._seen.update(keys)
        return {key for key in keys if self._seen[key] > 1}

    def _succeeded(self, begun: float, request: bytes, answer: object) -> None:
        self.lasts, self._success_begun = False, max(self._success_begun, begun)
        if isinstance(answer, RequestFailed):
            return
        seconds, self.worked = time.monotonic() - begun, True
        if self.known is None or seconds < self.known.seconds / 2:
            self._known.appendleft(Answered(request, seconds))
        elif len(self._known) < KNOWN:
            self._known.append(Answered(request, seconds))

    def _may_be_down(self, failure: RequestFailed) -> bool:
        """Whether an endpoint that is down fails like this. One that names a time is taken at its word."""
        if self.known is None:  # nothing but its own word says that it is the server
            return failure.status in _NOT_THERE and not _is_busy(failure)
        return failure.kind in _MAY_BE_THE_SERVER and not _is_busy(failure) and failure.most is None

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


def _is_busy(failure: Exception) -> bool:
    """Whether this is an endpoint that is there, and asked too much; a plain 503 may stand for either."""
    if not isinstance(failure, RequestFailed) or failure.kind is not FailureKind.RATE_LIMITED:
        return False
    plain = failure.status == _UNAVAILABLE and "overload" not in failure.message.lower()
    return failure.retry_after is not None or not plain


def _lost(failure: Exception) -> EndpointLost:
    if isinstance(failure, RequestFailed):
        said = f"{failure.status or failure.kind}: {failure.message}"
    else:
        said = str(failure) or "no answer"
    return EndpointLost(f"it fails whatever it is asked ({said})", fails_all=True)
