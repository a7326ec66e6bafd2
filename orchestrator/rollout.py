"""What a rollout is given: `Ask`, with which it makes requests, and the `Conversation` that an `Ask` begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

T = TypeVar("T")


class Conversation(Protocol):
    """A chat of a rollout with one endpoint: it keeps the messages, and answers the model's tool calls."""

    @property
    def messages(self) -> list[dict[str, Any]]:
        """All messages so far, as the next request has them; may be changed between two requests."""
        ...

    async def say(self, content: object, *, step: str | None = None, deadline: float | None = None) -> Any:
        """Send a user's message, and what follows until the model answers without calling a tool; return that answer.

        Each request, and each call of a tool, is an ask of the rollout. Raises as `Ask` does.
        """
        ...


class Ask(Protocol):
    """What a rollout asks with: `async def rollout(row, ask)`. Every answer is in the ledger before it is returned.

    A rollout that is run again, after any interruption or an edit, gets the answers to what it has asked before from
    the ledger. Asks are told apart by item, content, and the order in which equal ones are made.
    """

    async def __call__(
        self, request: object, to: str | None = None, *, step: str | None = None, deadline: float | None = None
    ) -> Any:
        """Send a request and return its answer.

        `to`: the name of the endpoint in the job's mapping; by default the first. `step`: a label for the transcript
        and the report. `deadline`: seconds after which it fails, without those in which its endpoint is not awake yet;
        the job's policy has the limits of attempts.

        Raises `RequestFailed` if the request is discarded, which the rollout may catch; otherwise it discards the item.
        """
        ...

    def soon(
        self, request: object, to: str | None = None, *, step: str | None = None, deadline: float | None = None
    ) -> Awaitable[Any]:
        """Send a request without waiting for its answer; awaiting what is returned waits for it, or raises."""
        ...

    async def call(self, function: Callable[..., Awaitable[T]], /, *args: object, **kwargs: object) -> T:
        """Call an async function of the user and return its result, which is recorded like an answer.

        Arguments and result must have a JSON form. A call that was interrupted before its result was recorded is made
        again (at least once). Raises what the function raises.
        """
        ...

    def conversation(
        self,
        *,
        system: str | None = None,
        to: str | None = None,
        tools: Sequence[Callable[..., Awaitable[object]]] = (),
        **parameters: object,
    ) -> Conversation:
        """Begin a chat. `tools`: async functions that the model may call. `parameters` are sent with every request."""
        ...
