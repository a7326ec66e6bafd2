"""Outage: distinguish an endpoint that fails every request from requests that fail because of their content."""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

import anyio

from orchestrator.domain.doubt import needs_probe, rows_are_at_fault
from orchestrator.domain.errors import EndpointLost, EndpointRefused, FailureKind, OutOfCredit, RequestFailed
from orchestrator.engine.change import Change

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    Ask = Callable[[Sequence[bytes]], Awaitable[Sequence[object]]]
    SendNext = Callable[[], bool]

REFUSED = 6  # probes in a row that are answered 401 or 403, after which waiting makes no sense
KNOWN = 8  # answered requests that are remembered, since one of them may itself fail by now
# The probe's timeout: at least so many seconds, and so many times the earlier duration of its request.
_SHORTEST, _SLOWER = 10.0, 10
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
    """A request that was answered, and the seconds that took."""

    request: bytes
    seconds: float


@dataclass(slots=True)
class Outage:
    """Whether an endpoint that used to work is down; kept for as long as a run uses it, across reconnections.

    A failure that may be the server's is held back and keeps its place in flight. It is charged to the item once a
    request that began after it succeeds. If nothing else is in flight, the next requests go. If there are none, or too
    many fail in a row, a request that was answered before is asked again as a probe; `domain/doubt.py` keeps probes
    rare. If the probe fails too, the endpoint is lost and no item is charged. If it is refused for lack of credit,
    `OutOfCredit` is raised, and `EndpointRefused` if `REFUSED` probes in a row are answered 401 or 403. If nothing was
    ever answered, the endpoint is lost if it says itself that it is not there (502, 503).
    """

    _known: deque[Answered] = field(default_factory=lambda: deque(maxlen=KNOWN))  # a probe asks the first one
    worked: bool = False  # whether a request was answered during this run, so URL, token and model are right
    lasts: bool = False  # whether the endpoint is known to be down
    _on_their_way: int = 0  # requests in flight
    held: int = 0  # failures in a row, which are held back
    _fresh: int = 0  # those of them with an item that had not failed before
    _held_since: float = inf
    _needless: int = 0  # probes in a row that were answered
    _refused: int = 0  # probes in a row that were answered 401 or 403
    _follows: bool = False  # whether next requests are about to be asked
    _probing: bool = False
    _success_begun: float = -inf
    _charged_at: float = -inf  # when what was held then was charged without a success
    _changed: Change = field(default_factory=Change)
    _seen: Counter[int] = field(default_factory=Counter)  # items that were in flight when the endpoint was lost

    @property
    def known(self) -> Answered | None:
        """A request that was answered; a different one after each failed probe."""
        return self._known[0] if self._known else None

    def recall(self, requests: Sequence[bytes]) -> None:
        """Remember requests that were answered in an earlier process."""
        self._known.extend(Answered(request, inf) for request in requests)

    async def ask(
        self, requests: Sequence[bytes], ask: Ask, probe: Ask, send_next: SendNext, *, failed_before: bool
    ) -> Sequence[object]:
        """Return the result of `ask`. Raises `EndpointLost` if `ask` and `probe` fail: any request would fail now.

        `send_next` sends the next request in another task and returns whether there was one and room for it.
        `failed_before`: whether all these items have failed before.
        """
        begun, failure = time.monotonic(), None
        self._on_their_way += 1
        self._follows = False
        try:
            answers = await ask(requests)
        except RequestFailed as failed:
            failure = failed
        finally:
            self._on_their_way -= 1
            self._changed.notify()
        if failure is None:
            self._succeeded(begun, requests[0], answers[0])
            return answers
        self._held_since = min(self._held_since, time.monotonic())
        self.held += 1
        self._fresh += not failed_before
        try:
            await self._hold(failure, requests, probe, send_next)
        finally:
            self.held -= 1
            self._fresh -= not failed_before
            self._held_since = self._held_since if self.held else inf
        raise failure

    async def _hold(self, failure: RequestFailed, requests: Sequence[bytes], probe: Ask, send_next: SendNext) -> None:
        """Return once the failure is charged: a request that began after it succeeds, or its rows are at fault."""
        failed_at = time.monotonic()
        while self._may_be_down(failure) and max(self._success_begun, self._charged_at) < failed_at:
            if self._on_their_way or self._probing or self._follows:
                await self._changed.next()
            elif self.known is None and len(requests) == 1:
                self.lasts = True
                raise _lost(failure)
            elif self._sends(send_next):
                self._follows = True
            elif self.known is not None and rows_are_at_fault(
                time.monotonic() - self._success_begun, self.known.seconds, failed_before=not self._fresh
            ):
                self._charged_at = time.monotonic()
                self._changed.notify()
            else:  # of a first batch, a random item, so that a bad one is not chosen each time
                await self.probe(probe, failure, self.known or Answered(random.choice(requests), inf))

    def _sends(self, send_next: SendNext) -> bool:
        """Send the next requests, as many as may fail before a probe shows more. Return whether there were any."""
        if (known := self.known) is None:
            return False
        sent, held_for = 0, time.monotonic() - self._held_since
        while not needs_probe(self.held + sent, held_for, self._needless, known.seconds) and send_next():
            sent += 1
        return sent > 0

    async def probe(self, ask: Ask, failure: RequestFailed | None = None, known: Answered | None = None) -> None:
        """Ask a request again that was answered before. Raises `EndpointLost` if it fails as `failure` did.

        Raises `OutOfCredit` if it is refused for lack of credit, and `EndpointRefused` after `REFUSED` such answers.
        """
        known = known or self.known
        if known is None:
            return
        begun, self._probing, was_down = time.monotonic(), True, self.lasts
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
                await self._changed.next()
            if self._success_begun >= begun:  # others are answered, so the probe was one request too many
                self._needless += 1
                return
            self.lasts, self._needless = True, 0
            self._known.rotate(-1)
            if isinstance(trouble.__cause__, OutOfCredit):
                raise trouble.__cause__  # noqa: B904 - it is the cause
            self._refused = self._refused + 1 if _is_forbidden(trouble) else 0
            if self._refused >= REFUSED:
                raise _refuses_all(trouble) from trouble
            raise _lost(failure or trouble) from trouble
        finally:
            self._probing = False
            self._changed.notify()
        self.lasts, self.worked, self._success_begun, self._refused = False, True, begun, 0
        self._needless += not was_down

    def blames(self, keys: Sequence[int]) -> set[int]:
        """Return those of these items that were also in flight at an earlier loss: one of them may be the cause."""
        if self.known is None:  # the endpoint was never there
            return set()
        self._seen.update(keys)
        return {key for key in keys if self._seen[key] > 1}

    def _succeeded(self, begun: float, request: bytes, answer: object) -> None:
        self.lasts, self._refused, self._success_begun = False, 0, max(self._success_begun, begun)
        if isinstance(answer, RequestFailed):
            return
        seconds, self.worked = time.monotonic() - begun, True
        if self.known is None or seconds < self.known.seconds / 2:
            self._known.appendleft(Answered(request, seconds))
        elif len(self._known) < KNOWN:
            self._known.append(Answered(request, seconds))

    def _may_be_down(self, failure: RequestFailed) -> bool:
        """Whether an endpoint that is down fails like this. If it names a retry time, it is believed to be there."""
        if self.known is None:  # only its own answer says that the server is the problem
            return failure.status in _NOT_THERE and not _is_busy(failure)
        return failure.kind in _MAY_BE_THE_SERVER and not _is_busy(failure) and failure.most is None


def _is_busy(failure: Exception) -> bool:
    """Whether the endpoint is there but overloaded; a plain 503 may mean either."""
    if not isinstance(failure, RequestFailed) or failure.kind is not FailureKind.RATE_LIMITED:
        return False
    plain = failure.status == _UNAVAILABLE and "overload" not in failure.message.lower()
    return failure.retry_after is not None or not plain


def _lost(failure: Exception) -> EndpointLost:
    if isinstance(failure, RequestFailed):
        reason = f"{failure.status or failure.kind}: {failure.message}"
    else:
        reason = str(failure) or "no answer"
    return EndpointLost(f"it fails every request ({reason})", fails_all=True)


def _is_forbidden(trouble: BaseException) -> bool:
    refusal = trouble if isinstance(trouble, EndpointRefused) else trouble.__cause__
    return isinstance(refusal, EndpointRefused) and refusal.forbidden


def _refuses_all(refusal: Exception) -> EndpointRefused:
    return EndpointRefused(
        f"{refusal}; it used to answer, and now refuses even what it answered before. Nothing was discarded "
        "for that; once that is fixed, run the same command again to continue"
    )
