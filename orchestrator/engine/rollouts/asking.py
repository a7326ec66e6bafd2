"""What a rollout asks with: the `ask` that its function gets."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from orchestrator.engine.rollouts.conversation import ToolConversation
from orchestrator.engine.rollouts.pending import Pending

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from orchestrator.engine.rollouts.open_rollout import OpenRollout


class AnswerSource(Protocol):
    """Where answers come from: endpoints and the ledger, or the ledger alone."""

    def begin(
        self, rollout: OpenRollout, request: object, to: str | None, step: str | None, deadline: float | None
    ) -> Pending:
        """Return the answer to a request, which may have to be sent first."""
        ...

    async def call(
        self,
        rollout: OpenRollout,
        function: Callable[..., Awaitable[Any]],
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
    ) -> Any:
        """Return the result of a function, which may have to be called first."""
        ...


class Asking:
    """The `Ask` of one rollout."""

    def __init__(self, answers: AnswerSource, rollout: OpenRollout) -> None:
        self._answers = answers
        self._rollout = rollout

    async def __call__(
        self, request: object, to: str | None = None, *, step: str | None = None, deadline: float | None = None
    ) -> Any:
        """Send a request and return its answer."""
        return await self.soon(request, to, step=step, deadline=deadline)

    def soon(
        self, request: object, to: str | None = None, *, step: str | None = None, deadline: float | None = None
    ) -> Pending:
        """Send a request; await what is returned for its answer."""
        _check(step, deadline)
        if not self._rollout.may_ask():
            return Pending()  # whoever awaits it is cancelled
        return self._answers.begin(self._rollout, request, to, step, deadline)

    async def call(self, function: Callable[..., Awaitable[Any]], /, *args: object, **kwargs: object) -> Any:
        """Call a function of the user, and record its result."""
        if not self._rollout.may_ask():
            await anyio.sleep_forever()  # until it is cancelled
        return await self._answers.call(self._rollout, function, args, kwargs)

    def conversation(
        self,
        *,
        system: str | None = None,
        to: str | None = None,
        tools: Sequence[Callable[..., Awaitable[object]]] = (),
        **parameters: object,
    ) -> ToolConversation:
        """Begin a chat."""
        return ToolConversation(self, system, to, tools, parameters)


def _check(step: object, deadline: object) -> None:
    if step is not None and not isinstance(step, str):
        raise TypeError(f"ask(step={step!r}) is not a text")
    if deadline is None:
        return
    if not isinstance(deadline, int | float) or isinstance(deadline, bool) or math.isnan(deadline):
        raise TypeError(f"ask(deadline={deadline!r}) is not a number of seconds")
