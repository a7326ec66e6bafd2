"""FLOOR 1: the doors. What the engine asks of the world; every kind behind a door passes the same conformance suite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager, AbstractContextManager
    from pathlib import Path

    from orchestrator.domain.batching import Limits
    from orchestrator.domain.endpoint import EndpointState
    from orchestrator.domain.errors import RequestFailed
    from orchestrator.domain.events import RunEvent
    from orchestrator.domain.item import Row
    from orchestrator.domain.notification import Notification
    from orchestrator.domain.policy import Policy
    from orchestrator.domain.terms import Terms

    Again = Callable[[], Awaitable[bool]]


@runtime_checkable
class Source(Protocol):
    """Where items come from. Read in a worker thread, as a stream, as often as the job is run."""

    def rows(self) -> AbstractContextManager[Iterator[Row]]:
        """Open the source and give its rows in order.

        A row that cannot be read is a `Row` with `unreadable` set; the rest goes on. `UsageError` where nothing can be
        read at all (missing file, no such column).
        """
        ...

    def sha256(self) -> str | None:
        """Hex SHA-256 of the input's bytes, or None where only reading the rows can tell."""
        ...

    def describe(self) -> str:
        """One short line for a person: the path, or what it iterates over."""
        ...


@runtime_checkable
class ReadsFiles(Protocol):
    """A source that reads files, and can say which: a sink must not write them."""

    def reads(self, paths: Sequence[Path]) -> list[Path]:
        """Those of the paths that lead to its files, by whatever name or link, or would if they were there."""
        ...


class Delivery(Protocol):
    """The files of one delivery while they are being written aside. Records come in input order."""

    def complete(self, records: Sequence[Mapping[str, object]]) -> None:
        """Write completed items: `{"id", <kept columns>, "output"}`."""
        ...

    def discard(self, records: Sequence[Mapping[str, object]]) -> None:
        """Write discarded items: `{"id", <kept columns>, "error": {"kind", "status", "message"}, "attempts"}`."""
        ...

    def seal(self, manifest: Mapping[str, object]) -> Mapping[str, object]:
        """Write the manifest, to which the files' names and SHA-256 are added, and put everything in place.

        Gives the manifest as it was written.
        """
        ...


@runtime_checkable
class Sink(Protocol):
    """Where answers go. Used in a worker thread."""

    @property
    def path(self) -> Path:
        """The output file, which may have placeholders in it; failures and manifest stand beside it."""
        ...

    @property
    def keep(self) -> tuple[str, ...]:
        """Columns of the input that are carried through to the output."""
        ...

    def for_run(self, names: Mapping[str, str]) -> Sink:
        """The sink with the placeholders in its path filled in: `run`, `date`, `job`."""
        ...

    def open(self) -> AbstractContextManager[Delivery]:
        """Begin a delivery. Unless it is sealed when the block ends, no file has appeared or changed."""
        ...


@runtime_checkable
class WritesFiles(Protocol):
    """A sink whose deliveries are files. Asked once the placeholders in its path are filled in."""

    @property
    def path(self) -> Path:
        """The output file."""
        ...

    def writes(self, runs: Iterable[object] = ()) -> tuple[Path, ...]:
        """Every file that a delivery writes: output, failures, manifest, and what they are called until complete.

        `runs`: also the names under which outputs of these runs stay if a delivery with fewer rows replaces them.
        """
        ...

    def for_part(self, job: str, limit: int, names: Mapping[str, str]) -> Self:
        """The sink for the first `limit` rows; another one if an output of this job with more rows stands there."""
        ...

    def check(self, job: str | None, *, replaces: bool = True) -> None:
        """`UsageError` where a delivery could not be written, or would replace what is not this job's.

        None: only whether it can be written. `replaces`: there may have been a delivery to these very files.
        """
        ...


class DataPlane(Protocol):
    """Items in, answers out."""

    @property
    def max_in_flight(self) -> int | None:
        """How many requests at once this plane has a use for; None: as many as the policy allows."""
        ...

    @property
    def limits(self) -> Limits:
        """What one request may carry."""
        ...

    @property
    def quiet_until(self) -> float:
        """The moment on the monotonic clock before which, as the server says of its quota, nothing is allowed."""
        ...

    async def metrics(self) -> str | None:
        """The server's Prometheus text, where it shows one."""
        ...

    async def ask(self, requests: Sequence[bytes], again: Again | None = None) -> Sequence[object]:
        """Ask once. One entry comes back per request (JSON): the decoded answer, or a `RequestFailed`.

        An answer whose tokens the server counts stands in an `Answer`. Where more than one request is sent, `again` is
        awaited before each further one, as each may cost; where it says False, no more are.

        Raises `RequestFailed` where the request failed as a whole, `EndpointLost` where the endpoint is gone,
        `EndpointRefused` where every request would be refused alike, `NoRoom` where this machine cannot ask it now.
        """
        ...


class ControlPlane(Protocol):
    """Wake, look, put to sleep. Every call has a deadline of its own; `EndpointSilent` where it passes."""

    @property
    def terms(self) -> Terms | None:
        """How it is to be left; None where it ends with this process, or is not ours to pause."""
        ...

    @property
    def look_every(self) -> float:
        """Seconds between two looks at its state, at the least."""
        ...

    @property
    def said(self) -> str:
        """What the last look showed, in the provider's own words: "initializing, 0 of 1 replicas"."""
        ...

    @property
    def installing(self) -> bool:
        """Whether what it needs is still being installed: that is not starting, so it has a deadline of its own."""
        ...

    async def resume(self) -> None:
        """Ask the endpoint to wake. It need not be awake when this returns. `EndpointFailed` where it never will."""
        ...

    async def state(self) -> EndpointState:
        """Look at the endpoint now. `EndpointRefused` where we may not look."""
        ...

    async def price(self) -> float | None:
        """Dollars per hour by the provider's own list, once it has been looked at; None where it has none. One try."""
        ...

    async def answers(self) -> bool:
        """Whether the data plane would answer a request now. Asks the data plane, never the provider."""
        ...

    async def pause(self, *, to_zero: bool = False) -> None:
        """Ask the endpoint to sleep, so that it is resumed, or (`to_zero`) so that the next request wakes it.

        Safe to repeat, and before any resume.
        """
        ...

    def connect(self, policy: Policy) -> AbstractAsyncContextManager[DataPlane]:
        """Open the data plane of an awake endpoint."""
        ...


@runtime_checkable
class Restarts(ControlPlane, Protocol):
    """A control plane of servers that we start ourselves."""

    async def restart(self) -> None:
        """End what runs but fails whatever it is asked; `state` then says paused, and `resume` starts it anew."""
        ...


class Member(ControlPlane, Protocol):
    """One server of an endpoint that has several. It has no terms: what is owed is the endpoint's.

    It is resumed, asked, lost and paused by itself while the other members go on. Two are the same member only if they
    are the same object.
    """

    @property
    def name(self) -> str:
        """Names the member for a person: "small replica 2"."""
        ...


@runtime_checkable
class HasMembers(Protocol):
    """A control plane of several servers, which may join and leave while the endpoint is used."""

    def members(self) -> AsyncGenerator[Sequence[Member]]:
        """Yield all present members, and yield them again after each change. Ends if there will be no more changes."""
        ...


@runtime_checkable
class Endpoint(Protocol):
    """A model server we can wake and pause; a frozen value usable in a job file."""

    @property
    def name(self) -> str:
        """Names the endpoint in the ledger: who holds it, what is owed."""
        ...

    @property
    def startup_timeout(self) -> float:
        """Seconds from resume to awake at the most."""
        ...

    def identity(self, policy: Policy) -> Mapping[str, object]:
        """Everything about the endpoint that shapes an answer: model, revision, task, parameters, wire. May read files.

        `UsageError` where the model is unknown.
        """
        ...

    def control(self) -> AbstractAsyncContextManager[ControlPlane]:
        """Open the control plane. What it opened is gone when the block ends."""
        ...


@runtime_checkable
class ChecksRequests(Protocol):
    """An endpoint that knows, without being awake, what it cannot be sent."""

    async def unsendable(self, request: bytes, policy: Policy) -> RequestFailed | None:
        """Why this request (JSON) would be refused before it is sent; None where it would be sent."""
        ...


@runtime_checkable
class Hook(Protocol):
    """Somebody who wants to be told how a run ended. Told at least once: the same news has the same id."""

    def describe(self) -> str:
        """Who it is, in a few words; kept in the ledger, so never a secret."""
        ...

    async def notify(self, notification: Notification) -> None:
        """Tell, within a deadline of its own. `NotificationFailed` where that did not succeed."""
        ...


class EventListener(Protocol):
    """Whoever wants to hear what happens during runs: a progress bar, a log, metrics."""

    def emit(self, event: RunEvent) -> None:
        """Take note of an event. Called in the event loop, in order; must neither wait nor raise."""
        ...


@runtime_checkable
class AnsweredOtherwise(Protocol):
    """An endpoint whose answers had another shape in earlier releases: a job that has such answers goes on with it."""

    @property
    def earlier_beginning(self) -> str | None:
        """How an answer of that shape begins, as JSON; None where there was no other shape."""
        ...

    def as_earlier(self) -> Endpoint:
        """The same endpoint, whose answers have that shape."""
        ...
