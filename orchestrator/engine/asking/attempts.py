"""Attempts: ask one endpoint for a batch, in parts if it is refused as a whole, and judge each item."""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from orchestrator.domain.answer import Answer, Note, tokens_of
from orchestrator.domain.attempt import Completed, Discarded, Outcome, RetryLater
from orchestrator.domain.errors import (
    EndpointLost,
    EndpointRefused,
    FailureKind,
    NoRoom,
    OrchestratorError,
    OutOfCredit,
    RequestFailed,
    described,
)
from orchestrator.domain.failpoints import reached
from orchestrator.domain.traffic import NONE, status_of
from orchestrator.domain.verdict import ALONE, asked_in_parts, judge, tries, whole_repeats
from orchestrator.engine.asking.concurrency import UNPROVEN_LIMIT
from orchestrator.engine.asking.parse import parsed, stored
from orchestrator.store.items import Settlement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.domain.charges import UsePrice
    from orchestrator.domain.item import Item
    from orchestrator.engine.asking.breaker import Breaker
    from orchestrator.engine.asking.concurrency import Concurrency
    from orchestrator.engine.asking.effort import Effort
    from orchestrator.engine.asking.outage import SendNext
    from orchestrator.engine.asking.throttle import Throttle
    from orchestrator.engine.asking.work_queue import WorkQueue
    from orchestrator.ports import DataPlane

_logger = logging.getLogger(__name__)


class _PutOff(Exception):
    """One more request for the items in flight may not be made now."""


class Asker:
    """Asks over one connection to an endpoint and judges the answers. Settles nothing."""

    def __init__(
        self,
        queue: WorkQueue,
        model: DataPlane,
        effort: Effort,
        throttle: Throttle,
        concurrency: Concurrency,
        breaker: Breaker,
        send_next: SendNext,
    ) -> None:
        self._queue = queue
        self._policy = queue.work.policy
        self._model = model
        self._effort = effort
        self._throttle = throttle
        self._concurrency = concurrency
        self._breaker = breaker
        self._send_next = send_next
        self._refused_at_first: set[bytes] = set()  # requests that were refused before any was answered
        self._repeats = Counter[bool]()  # of whole batches after garbled answers, by whether they passed
        self._mistakes: set[str] = set()  # names of unexpected exceptions that have been logged

    async def probe_if_down(self) -> None:
        """Raise `EndpointLost` if the endpoint was down and still fails."""
        if self._effort.outage.lasts:
            await self._effort.outage.probe(self._probe)

    async def attempt(self, batch: list[Item], *, part: bool = False, repeat: int = 0) -> list[Settlement]:
        """Ask once. A batch that is refused as a whole is halved until the items to blame are alone.

        `part`: the batch is part of a larger one that already has a place in flight, or the whole of it, for the
        `repeat`th time.
        """
        if part and not await self._throttle.begin_another(self._effort.stop):
            raise _PutOff
        begun = time.monotonic()
        answers: Sequence[object]
        try:
            answers = await self._ask(batch)
        except RequestFailed as failure:
            garbled = failure.kind is FailureKind.GARBLED and len(batch) > 1 and part == bool(repeat)
            self._repeats[False] += garbled and part
            if garbled and repeat < whole_repeats(self._repeats[True], self._repeats[False]):
                with suppress(_PutOff, NoRoom):
                    return await self.attempt(batch, part=True, repeat=repeat + 1)
            elif len(batch) > 1 and asked_in_parts(failure.kind, _latest_try(batch, failure) + part, self._policy):
                return await self._in_parts(batch, failure, begun)
            answers = [failure] * len(batch)
        else:
            self._concurrency.went_well(batch)
            self._repeats[True] += repeat > 0
        seconds, jitter = time.monotonic() - begun, random.random()
        return [
            Settlement(item, self._outcome(item, answer, jitter), seconds)
            for item, answer in zip(batch, answers, strict=True)
        ]

    async def _in_parts(self, batch: list[Item], failure: RequestFailed, begun: float) -> list[Settlement]:
        """Ask the parts of a refused batch. If they all succeed, the size of the batch was the problem."""
        size = min(failure.most or len(batch), (len(batch) + 1) // 2)
        if failure.most is not None:
            self._concurrency.cap(failure.most)
        parts = [batch[start : start + size] for start in range(0, len(batch), size)]
        settlements = list[Settlement]()
        for number, part in enumerate(parts):
            try:
                settlements += await self.attempt(part, part=True)
            except (_PutOff, NoRoom):
                self._put_off([item for later in parts[number:] for item in later], failure)
                return settlements
        sized = failure.most is None and failure.kind is not FailureKind.GARBLED
        if sized and all(isinstance(one.outcome, Completed) for one in settlements):
            self._concurrency.went_well_in_parts(size, begun)
        return settlements

    def _put_off(self, items: Sequence[Item], failure: RequestFailed) -> None:
        """Requeue items of a refused batch that were not asked themselves; next time, each is asked alone."""
        for item in items:
            item.failures.append(failure.kind)
        self._queue.requeue(items)

    # -- asking -------------------------------------------------------------------------------------------------------

    async def _ask(self, batch: list[Item]) -> Sequence[object]:
        """Ask once; after a refusal for overload, all requests to this endpoint wait."""
        generation, answered = self._throttle.cooldown.generation, False
        self._queue.work.progress.asked += 1
        begun = self._concurrency.begin_batch()
        try:
            reached("before send")
            requests = [item.request for item in batch]
            if self._model.max_in_flight is None:
                # after an item that has crashed the endpoint before, it may be down again
                known = all(item.failures and FailureKind.CRASHED not in item.failures for item in batch)
                outage = self._effort.outage
                answers = await outage.ask(requests, self._answers, self._probe, self._send_next, failed_before=known)
            else:  # our own worker: we notice if it dies
                answers = await self._answers(requests)
            reached("after send")
            answered = True
        except RequestFailed as failure:
            self._queue.work.progress.asked -= not failure.sent
            if failure.kind is FailureKind.RATE_LIMITED:
                self._throttle.refused(batch, generation, failure.retry_after, self._concurrency.in_flight)
            raise
        finally:
            self._concurrency.end_batch(batch, begun, answered=answered)
        self._effort.machine.sufficed()
        if self._throttle.succeeded(begun, generation, self._model.quiet_until):
            self._queue.notify()
        return answers

    async def _again(self) -> bool:
        """Whether the data plane may make one more request for the same items; the request is then counted."""
        if not await self._throttle.begin_another(self._effort.stop):
            return False
        self._queue.work.progress.asked += 1
        return True

    async def _probe(self, requests: Sequence[bytes]) -> Sequence[object]:
        """Make one more request, which is not charged to any item."""
        if not await self._again():
            raise EndpointLost("the rate limit does not allow a request now that would show whether it is down")
        begun, generation = time.monotonic(), self._throttle.cooldown.generation
        answers = await self._answers(requests)
        self._throttle.succeeded(begun, generation, self._model.quiet_until)
        return answers

    async def _answers(self, requests: Sequence[bytes]) -> Sequence[object]:
        """Return one answer for each request. An unexpected exception is logged and fails these items, not the run."""
        begun, statuses = time.monotonic(), self._queue.work.progress.statuses
        try:
            answers = await self._model.ask(requests, self._again)
        except (EndpointRefused, OutOfCredit) as refusal:
            statuses[_status_word(refusal.status)] += 1
            if self._concerns_all(refusal, requests):
                if isinstance(refusal, OutOfCredit):
                    raise _first_without_credit(refusal) from refusal
                raise
            # URL, token and model have worked, so these items are to blame. If all items fail, the breaker notices, and
            # the outage if there is no credit any more.
            failure = RequestFailed(FailureKind.DUBIOUS, str(refusal), status=refusal.status)
            failure.body = refusal.body
            raise failure from refusal
        except RequestFailed as failure:
            statuses += Counter({_status_word(status_of(failure.kind, failure.status)): failure.sent})  # without zeros
            raise
        except (EndpointLost, NoRoom, OrchestratorError):
            raise
        except Exception as mistake:
            statuses[_status_word(200)] += 1
            kind = type(mistake).__name__
            if kind not in self._mistakes:
                self._mistakes.add(kind)
                _logger.exception("an answer could not be read; its items fail")
            why = f"the answer could not be read: {described(mistake)}"
            raise RequestFailed(FailureKind.BAD_ANSWER, why) from mistake
        statuses[_status_word(200)] += 1
        self._queue.work.progress.latency.add(time.monotonic() - begun)
        if self._effort.use_price is not None:
            self._charge(self._effort.use_price, answers)
        if len(answers) != len(requests):
            raise RequestFailed(FailureKind.BAD_ANSWER, f"asked {len(requests)} inputs, got {len(answers)} answers")
        return answers

    def _charge(self, price: UsePrice, answers: Sequence[object]) -> None:
        """Charge an answered request to the run, with the tokens that the server has counted."""
        counted = [answer for answer in answers if isinstance(answer, Answer)]
        tokens_in = sum(tokens_of(answer.tokens_in) or 0 for answer in counted)
        tokens_out = sum(tokens_of(answer.tokens_out) or 0 for answer in counted)
        self._queue.work.progress.charge(self._effort.presence.name, price.charge(1, tokens_in, tokens_out))

    def _concerns_all(self, refusal: EndpointRefused | OutOfCredit, requests: Sequence[bytes]) -> bool:
        """Whether every request would be refused like this one, as far as one can tell without an answered one."""
        if isinstance(refusal, OutOfCredit):
            return self._effort.outage.known is None
        return not (self._concurrency.proven or self._effort.outage.worked) and self._refuses_all(requests)

    def _refuses_all(self, requests: Sequence[bytes]) -> bool:
        """Whether, with nothing answered yet, so many requests (or one twice) were refused that all would be."""
        refused, request = self._refused_at_first, b"\n".join(requests)
        again = request in refused
        refused.add(request)
        return again or len(refused) >= min(UNPROVEN_LIMIT, self._queue.left - self._breaker.holds)

    # -- judging ------------------------------------------------------------------------------------------------------

    def _outcome(self, item: Item, answer: object, jitter: float) -> Outcome:
        if isinstance(answer, RequestFailed):
            return self.judge(item, answer, jitter)
        tokens_in = tokens_out = text = None
        notes: frozenset[str] = frozenset()
        if isinstance(answer, Answer):
            tokens_in, tokens_out, notes = tokens_of(answer.tokens_in), tokens_of(answer.tokens_out), answer.notes
            self._throttle.spent((tokens_in or 0) + (tokens_out or 0))
            text = answer.text
            answer = answer.value
        if isinstance(answer, str) and not answer.strip():
            notes |= {Note.EMPTY}
        parse = self._queue.work.parse
        try:
            as_json = stored(answer, text)
        except RequestFailed as failure:
            return self.judge(item, failure, jitter)
        if parse is None:
            return Completed(as_json, None, tokens_in, tokens_out, notes)
        try:
            return Completed(parsed(parse, answer), as_json, tokens_in, tokens_out, notes)
        except RequestFailed as refusal:
            verdict = self.judge(item, refusal, jitter)
            return Discarded(verdict.failure, as_json, notes) if isinstance(verdict, Discarded) else verdict

    def judge(self, item: Item, failure: RequestFailed, jitter: float) -> RetryLater | Discarded:
        """Return whether the item is asked again after this failure, and when."""
        self._throttle.spent(failure.tokens)
        refused = failure.kind is FailureKind.RATE_LIMITED
        attempt, alone = tries(failure.kind, item.failures), self._throttle.alone(item) if refused else 0
        verdict = judge(failure, attempt=attempt, policy=self._policy, jitter=jitter, alone=alone)
        if refused and isinstance(verdict, RetryLater):
            if alone == ALONE - 1:  # it may just have come last to a full server each time
                self._queue.suspects.add(item.key)
            if len(self._queue.work.progress.servers) > 1:  # this endpoint cools down; others may take the item
                return RetryLater(self._policy.backoff.delay(attempt, jitter), failure)
            return RetryLater(self._throttle.put_off(verdict.delay), failure)
        return verdict


def _status_word(status: int | None) -> str:
    return NONE if status is None else str(status)


def _first_without_credit(refusal: OutOfCredit) -> OutOfCredit:
    """Return the refusal of a run in which nothing was answered: perhaps only this request costs too much."""
    raised = OutOfCredit(f"{refusal}; nothing had been answered before, so this counts for every request")
    raised.status, raised.body = refusal.status, refusal.body
    return raised


def _latest_try(batch: list[Item], failure: RequestFailed) -> int:
    """Return the highest number of tries among the items; a part of a batch has been tried with it before."""
    return max(tries(failure.kind, item.failures) for item in batch)
