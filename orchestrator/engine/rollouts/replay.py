"""Replay: how far a rollout comes with the asks that the ledger has. Asks nothing, and calls no user function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

from orchestrator import exact_json
from orchestrator.domain.asks import RecordedAsk
from orchestrator.domain.item import Item, Lease
from orchestrator.engine.rollouts.asking import Asking
from orchestrator.engine.rollouts.functions import Functions
from orchestrator.engine.rollouts.open_rollout import AskMaker, OpenRollout, row_of
from orchestrator.engine.rollouts.pending import Pending

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from orchestrator.job import Job
    from orchestrator.store.asks import Known

_LONGEST = 5.0  # seconds for what a function waits for besides its asks
_TURNS = 5  # of the event loop, in which tasks of a rollout ask beside the first ask without an answer
_NO_LEASE = Lease(0, 0)


@dataclass(frozen=True, slots=True)
class Replayed:
    """How many asks of a rollout have an answer, and how many more it makes before it needs one that is not there."""

    answered: int
    missing: int


class Replay:
    """Runs a job's rollouts with the answers in the ledger alone."""

    def __init__(self, job: Job, identity: Mapping[str, Any]) -> None:
        if job.rollout is None:
            raise TypeError(f"job {job.name!r} has no rollout")
        self._function: Callable[[Any, Any], Awaitable[object]] = job.rollout
        self._maker = AskMaker(job, identity)
        self._max_asks = job.policy.max_asks

    async def __call__(self, item_id: str, request: bytes, known: Known) -> Replayed:
        """Run the rollout of one item until it has returned, failed, or cannot go on."""
        answers = _Recorded(self._maker)
        rollout = OpenRollout(Item(0, item_id, request, 1, _NO_LEASE), known, self._max_asks)
        functions = Functions(lambda _: None)

        async def run() -> None:
            try:
                await self._function(row_of(request), Asking(answers, rollout))
            except KeyboardInterrupt:
                raise
            except BaseException:  # noqa: BLE001, S110 - the run will say so; what is cancelled below ends here as well
                pass
            answers.ended.set()

        async with functions.ended():
            functions.begin(rollout, run())
            with anyio.move_on_after(_LONGEST):
                await answers.ended.wait()
            for _ in range(_TURNS if answers.missing else 0):
                await anyio.lowlevel.checkpoint()
        return Replayed(answers.answered, answers.missing)


class _Recorded:
    """The asks in the ledger. `ended`: set when the rollout has returned, or waits for an answer that is not there."""

    def __init__(self, maker: AskMaker) -> None:
        self._maker = maker
        self.answered = 0
        self.missing = 0
        self.ended = anyio.Event()

    def begin(
        self, rollout: OpenRollout, request: object, to: str | None, step: str | None, deadline: float | None
    ) -> Pending:
        """Return the recorded answer; without one, what is returned waits for ever."""
        ask = self._maker.ask(rollout, request, to, step)
        pending = Pending()
        if isinstance(ask, RecordedAsk):
            self.answered += 1
            pending.settle(ask)
        else:
            self._miss()
        return pending

    async def call(
        self,
        rollout: OpenRollout,
        function: Callable[..., Awaitable[Any]],
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
    ) -> Any:
        """Return the recorded result; without one, wait for ever."""
        call = self._maker.call(rollout, function, args, kwargs)
        if isinstance(call, RecordedAsk):
            self.answered += 1
            return exact_json.loads(call.answer or "null")
        self._miss()
        return await anyio.sleep_forever()

    def _miss(self) -> None:
        self.missing += 1
        self.ended.set()
