"""Pending: the answer to one ask, or the failure, once it is on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from orchestrator import exact_json

if TYPE_CHECKING:
    from collections.abc import Generator

    from orchestrator.domain.asks import RecordedAsk
    from orchestrator.domain.errors import RequestFailed


class Pending:
    """What `ask.soon` returns. Awaiting it waits for the answer, and may be done several times."""

    __slots__ = ("_answer", "_failure", "_settled")

    def __init__(self) -> None:
        self._settled = anyio.Event()
        self._answer: str | None = None
        self._failure: RequestFailed | None = None

    def answer(self, answer: str) -> None:
        """Give the answer, as JSON."""
        self._answer = answer
        self._settled.set()

    def fail(self, failure: RequestFailed) -> None:
        """Give the reason why there is no answer."""
        self._failure = failure
        self._settled.set()

    def settle(self, recorded: RecordedAsk) -> None:
        """Give what the ledger has of a settled ask."""
        if recorded.answer is None:
            self.fail(recorded.failure)
        else:
            self.answer(recorded.answer)

    def __await__(self) -> Generator[Any, Any, Any]:
        """Return the answer, or raise `RequestFailed`."""
        if not self._settled.is_set():  # a rollout that runs again does not give way to others for each old answer
            yield from self._settled.wait().__await__()
        if self._answer is None:
            raise _raised(self._failure)
        return exact_json.loads(self._answer)


def _raised(failure: RequestFailed | None) -> RequestFailed:
    """Return a failure of its own for each time that one is raised, so that tracebacks do not grow."""
    if failure is None:
        raise RuntimeError("the ask is settled without answer and failure")
    return type(failure)(failure.kind, failure.message, status=failure.status, retry_after=failure.retry_after)
