"""Sender: sends the requests of a load test to the servers of an endpoint, and counts what becomes of them."""

from __future__ import annotations

import time
from functools import partial
from itertools import cycle, islice
from typing import TYPE_CHECKING

import anyio

from orchestrator.domain.answer import Answer, tokens_of
from orchestrator.domain.charges import Charge
from orchestrator.domain.errors import (
    EndpointFailed,
    EndpointLost,
    EndpointRefused,
    FailureKind,
    NoRoom,
    OrchestratorError,
    OutOfCredit,
    RequestFailed,
    UsageError,
    described,
)
from orchestrator.domain.load_tally import LoadCourse, LoadTally, Sent
from orchestrator.domain.phrases import money
from orchestrator.ports import StreamsAnswers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from orchestrator.domain.charges import UsePrice
    from orchestrator.ports import DataPlane

LOST, REFUSED, NO_ROOM = "lost", "refused", "no_room"  # kinds of failures beside those of requests
_OVERLOAD = {FailureKind.RATE_LIMITED, FailureKind.UNAVAILABLE, FailureKind.TIMEOUT, NO_ROOM}  # what one wants to find
_TRIES, _BREATH = 5, 1.0  # of the first request, if the endpoint is not ready after all; seconds, one more each time


class Sender:
    """Sends requests in turn, each to the server that has the fewest in flight.

    `given_up` says why to end: after `breaker` failures in a row that no load explains, or once answers, at this
    `price`, have cost `most` dollars.
    """

    def __init__(
        self,
        models: Sequence[DataPlane],
        requests: Sequence[bytes],
        size: int,
        breaker: int,
        price: UsePrice | None = None,
        most: float | None = None,
        *,
        stream: bool = False,
    ) -> None:
        """`stream`: ask for answers in parts, and count how long the first one takes.

        Raises `UsageError` if there are none.
        """
        self._models = models
        self._streams = [model for model in models if isinstance(model, StreamsAnswers) and model.streams]
        if stream and len(self._streams) < len(models):
            raise UsageError("this endpoint, or its wire, has no answers in parts: leave out --stream")
        self._stream = stream
        self._requests = cycle(requests)
        self.size = size  # items of a request
        self._breaker = breaker
        self._price = price
        self._most = most
        self._at_each = [0] * len(models)  # requests in flight
        self.in_flight = 0
        self._in_a_row = 0
        self._freed: anyio.Event | None = None  # of whoever waits for a place
        self.charged = Charge()
        self.given_up: str | None = None
        self.gave_up = anyio.Event()
        self.no_room = 0
        self.tally = LoadTally(time.monotonic())
        self.course = LoadCourse(time.monotonic(), 0.0)

    def count_in(self, tally: LoadTally) -> None:
        """Count what happens from now on in this tally."""
        self.tally, self.no_room = tally, 0

    async def freed(self) -> None:
        """Return when a request has ended."""
        self._freed = self._freed or anyio.Event()
        await self._freed.wait()

    async def prove(self) -> float:
        """Send one request alone, which counts nowhere; return the seconds that it took.

        Raises `EndpointFailed` if it fails, so that a wrong wire costs one request.
        """
        request = [next(self._requests)]
        for number in range(1, _TRIES + 1):
            begun = time.monotonic()
            try:
                (answer,) = await self._asked_at(0, request, lambda: None)
                if isinstance(answer, RequestFailed):
                    raise answer
            except (RequestFailed, EndpointLost, NoRoom) as failure:
                passing = not isinstance(failure, RequestFailed) or failure.kind in _OVERLOAD
                if number < _TRIES and passing:
                    await anyio.sleep(number * _BREATH)
                    continue
                raise EndpointFailed(f"the first request failed, so no more were sent: {failure}") from failure
            else:
                self._charge([answer])
                return time.monotonic() - begun
        raise AssertionError("unreachable")

    async def send(self, planned: float | None = None) -> float:
        """Send the next request and count what becomes of it. Return for how many seconds the server refuses more.

        `planned`: when it should have been sent, on the monotonic clock.
        """
        number = self._at_each.index(min(self._at_each))
        batch, now = list(islice(self._requests, self.size)), time.monotonic()
        sent = Sent(now if planned is None else min(planned, now), now)
        self._move(number, 1, now)
        self.tally.send(sent)
        try:
            return await self._asked(number, batch, sent)
        except anyio.get_cancelled_exc_class():
            self.tally.cut(sent, time.monotonic())
            raise
        finally:
            self._move(number, -1, time.monotonic())
            if self._freed is not None:
                self._freed.set()
                self._freed = None

    def _move(self, number: int, by: int, now: float) -> None:
        self.tally.weigh(now, self.in_flight)
        self._at_each[number] += by
        self.in_flight += by
        part = self.course.at(now)
        part.in_flight = max(part.in_flight, self.in_flight)

    async def _asked(self, number: int, batch: list[bytes], sent: Sent) -> float:
        try:
            answers = await self._asked_at(number, batch, partial(self._first_text, sent))
            self._charge(answers)
        except RequestFailed as failure:
            self._failed(sent, failure.kind, failure.status, str(failure))
            return failure.retry_after or 0.0
        except EndpointLost as loss:
            self._failed(sent, LOST, None, str(loss))
            return loss.retry_after or 0.0
        except (EndpointRefused, OutOfCredit) as refusal:
            self._failed(sent, REFUSED, refusal.status, str(refusal))
        except NoRoom as lack:
            self.no_room += 1
            self._failed(sent, NO_ROOM, None, str(lack))
        except OrchestratorError:
            raise
        except Exception as mistake:  # noqa: BLE001 - no bytes from outside end a load test
            self._failed(sent, FailureKind.BAD_ANSWER, None, f"the answer could not be read: {described(mistake)}")
        else:
            self._answered(sent, answers)
        return 0.0

    async def _asked_at(self, number: int, batch: Sequence[bytes], first: Callable[[], None]) -> Sequence[object]:
        if self._stream:
            return await self._streams[number].ask_in_parts(batch, first)
        return await self._models[number].ask(batch)

    def _first_text(self, sent: Sent) -> None:
        if sent.at >= self.tally.begun:
            self.tally.until_first_text.add(time.monotonic() - sent.planned)

    def _answered(self, sent: Sent, answers: Sequence[object]) -> None:
        """Count an answer; a request of which no item was answered has failed."""
        good = [answer for answer in answers if not isinstance(answer, RequestFailed)]
        if not good:
            failure = next(answer for answer in answers if isinstance(answer, RequestFailed))
            self._failed(sent, failure.kind, failure.status, str(failure))
            return
        now, counted = time.monotonic(), [answer for answer in good if isinstance(answer, Answer)]
        tokens_in = _total(tokens_of(answer.tokens_in) for answer in counted)
        tokens_out = _total(tokens_of(answer.tokens_out) for answer in counted)
        self._in_a_row = 0
        self.tally.answer(sent, now, len(good), (tokens_in, tokens_out))
        part = self.course.at(now)
        part.answered += 1
        part.items += len(good)
        part.tokens += (tokens_in or 0) + (tokens_out or 0)
        self.course.at(sent.planned).latency.add(now - sent.planned)

    def _failed(self, sent: Sent, kind: str, status: int | None, message: str) -> None:
        now = time.monotonic()
        self.tally.fail(sent, now, kind, status, message)
        self.course.at(now).failed += 1
        self._in_a_row = 0 if kind in _OVERLOAD else self._in_a_row + 1
        if self._in_a_row >= self._breaker:
            self._give_up(f"{self._in_a_row} requests in a row failed: {message}")

    def _charge(self, answers: Sequence[object]) -> None:
        """Count what an answered request costs, with the tokens that the server has counted."""
        if self._price is None:
            return
        counted = [answer for answer in answers if isinstance(answer, Answer)]
        tokens_in = sum(tokens_of(answer.tokens_in) or 0 for answer in counted)
        tokens_out = sum(tokens_of(answer.tokens_out) or 0 for answer in counted)
        self.charged += self._price.charge(1, tokens_in, tokens_out)
        if self._most is not None and self.charged.dollars >= self._most:
            self._give_up(f"its answers have cost {money(self.charged.dollars)}, of {money(self._most)}")

    def _give_up(self, why: str) -> None:
        if self.given_up is None:
            self.given_up = why
            self.gave_up.set()


def _total(counts: Iterable[int | None]) -> int | None:
    """Return the sum of what is known; None if nothing is."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
