"""Pending: the answer to one ask, or the failure, once it is on disk."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from orchestrator import exact_json

if TYPE_CHECKING:
    from collections.abc import Generator

    from orchestrator.domain.asks import RecordedAsk
    from orchestrator.domain.errors import RequestFailed


class Pending:
    """What `ask.soon` returns. Awaiting it waits for the answer, and may be done several times."""

    __slots__ = ("_answer", "_failure", "_waiting")

    def __init__(self) -> None:
        self._answer: str | None = None
        self._failure: RequestFailed | None = None
        self._waiting: list[asyncio.Future[None]] = []  # an `Event` would cost three times as much

    def answer(self, answer: str) -> None:
        """Give the answer, as JSON."""
        self._answer = answer
        self._wake()

    def fail(self, failure: RequestFailed) -> None:
        """Give the reason why there is no answer."""
        self._failure = failure
        self._wake()

    def settle(self, recorded: RecordedAsk) -> None:
        """Give what the ledger has of a settled ask."""
        if recorded.answer is None:
            self.fail(recorded.failure)
        else:
            self.answer(recorded.answer)

    def _wake(self) -> None:
        for future in self._waiting:
            if not future.done():  # it was cancelled
                future.set_result(None)

    def __str__(self) -> str:
        """Refuse to be put into a text, such as the next prompt, which would then be paid for."""
        raise TypeError("the answer is not awaited: write `await` before what `ask.soon` returned")

    def __await__(self) -> Generator[Any, Any, Any]:
        """Return the answer, or raise `RequestFailed`. Does not give way to other tasks if it is there already."""
        if self._answer is None and self._failure is None:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            yield from future
        if self._failure is not None:  # one of its own each time, so that tracebacks do not grow
            failure = self._failure
            raise type(failure)(failure.kind, failure.message, status=failure.status, retry_after=failure.retry_after)
        return exact_json.loads(self._answer or "null")
