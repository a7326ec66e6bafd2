"""The ports: what the engine needs from the outside world. All kinds of one port pass the same conformance suite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

from orchestrator.rollout import Ask as Ask  # noqa: PLC0414 - job files may import both from here, where they were
from orchestrator.rollout import Conversation as Conversation  # noqa: PLC0414 - the same

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager, AbstractContextManager
    from pathlib import Path

    from orchestrator.domain.batching import Limits
    from orchestrator.domain.charges import UsePrice
    from orchestrator.domain.endpoint import EndpointState
    from orchestrator.domain.errors import RequestFailed
    from orchestrator.domain.events import RunEvent
    from orchestrator.domain.item import ItemResult, Row
    from orchestrator.domain.location import Location, Target
    from orchestrator.domain.notification import Notification
    from orchestrator.domain.policy import Policy
    from orchestrator.domain.terms import Billed, Terms

    Again = Callable[[], Awaitable[bool]]


@runtime_checkable
class Source(Protocol):
    """The origin of items. Read in a worker thread, as a stream, once for each run of the job."""

    def rows(self) -> AbstractContextManager[Iterator[Row]]:
        """Open the source and yield its rows in order.

        A row that cannot be read is a `Row` with `unreadable` set, and later rows follow. Raises `UsageError` if
        nothing can be read at all (missing file, no such column).
        """
        ...

    def sha256(self) -> str | None:
        """Return the hex SHA-256 of the input's bytes, or None if only reading the rows shows whether they changed."""
        ...

    def describe(self) -> str:
        """Return one short line for the user: the path, or what it iterates over."""
        ...


@runtime_checkable
class ReadsFiles(Protocol):
    """A source that can say which files it reads, since a sink must not write them."""

    def reads(self, paths: Sequence[Path]) -> list[Path]:
        """Return those of the paths that lead to its files, by any name or link, or would if they existed."""
        ...


@runtime_checkable
class ReadsObjects(Protocol):
    """A source that can say which objects of a store it reads, since a sink must not write them."""

    def reads_objects(self, locations: Sequence[Location]) -> list[Location]:
        """Return those of the locations that it reads, or would read if they existed."""
        ...


@runtime_checkable
class SelectsColumns(Protocol):
    """A source that saves reading columns that nobody uses."""

    def selecting(self, columns: frozenset[str]) -> Source:
        """Return the source whose rows have at least these columns. Ids and everything else about them stay."""
        ...


@runtime_checkable
class ReadsTexts(Protocol):
    """A source whose rows are each made from one text alone, so that equal texts are equal rows: lines of a file.

    It has a `sha256`.
    """

    @property
    def reads_as(self) -> str:
        """What else shapes its rows, such as the column of ids."""
        ...

    def texts(self) -> AbstractContextManager[Iterator[tuple[int, bytes]] | None]:
        """Open the source and yield the number and the text of each row; None if this input has to be parsed."""
        ...

    def row_of(self, number: int, text: bytes) -> Row:
        """Return the row that `rows` would yield for it, with its `text` if it can be read."""
        ...


class Results(Protocol):
    """The results of another job in the ledger. Blocking: for the worker thread in which a source is read."""

    def pages(self) -> Generator[Sequence[ItemResult]]:
        """Yield its items page by page, in input order. Raises `UsageError` if they change while they are read."""
        ...

    def version(self) -> str:
        """Return a text that changes when the results do."""
        ...

    def describe(self) -> str:
        """Return which runs these are: "run 7 of label-reviews"."""
        ...


@runtime_checkable
class ReadsResults(Protocol):
    """A source whose rows are another job's results. The engine binds it before anything else is asked of it."""

    @property
    def job(self) -> str:
        """The name of that job."""
        ...

    def bound(self, results: Results) -> Source:
        """Return the source that reads these results."""
        ...


class Delivery(Protocol):
    """The files of one delivery, written under temporary names. Records arrive in input order."""

    def complete(self, records: Sequence[Mapping[str, object]]) -> None:
        """Write completed items: `{"id", <kept columns>, "output"}`."""
        ...

    def discard(self, records: Sequence[Mapping[str, object]]) -> None:
        """Write discarded items: `{"id", <kept columns>, "error": {"kind", "status", "message"}, "attempts"}`."""
        ...

    def seal(self, manifest: Mapping[str, object]) -> Mapping[str, object]:
        """Write the manifest with the files' names and SHA-256, and move all files into place.

        Returns the manifest as written.
        """
        ...


@runtime_checkable
class Sink(Protocol):
    """The destination of answers. Used in a worker thread."""

    @property
    def keep(self) -> tuple[str, ...]:
        """The columns of the input that are copied to the output."""
        ...

    @property
    def placeholders(self) -> frozenset[str]:
        """The placeholders in the name of its target: any of `run`, `date` and `job`."""
        ...

    def describe(self) -> str:
        """Return one short line for the user that says where it delivers: the path, the table. It holds no secret."""
        ...

    def for_run(self, names: Mapping[str, str]) -> Sink:
        """Return the sink with its placeholders filled in."""
        ...

    def open(self) -> AbstractContextManager[Delivery]:
        """Begin a delivery. If it is not sealed when the block ends, no file appears or changes."""
        ...


@runtime_checkable
class ChecksTarget(Protocol):
    """A sink that looks at its target before anything is asked."""

    def for_part(self, job: str, limit: int, names: Mapping[str, str]) -> Self:
        """Return the sink for the first `limit` rows, with another target if this job has an output with more rows.

        `names`: for its placeholders, which are not filled in yet.
        """
        ...

    def check(self, job: str | None, *, replaces: bool = True) -> None:
        """Raise `UsageError` if a delivery could not be written, or would replace data that is not this job's.

        Called after the placeholders are filled in. `job`: None checks only that it can be written. `replaces`: an
        earlier delivery may have written what is there.
        """
        ...


@runtime_checkable
class NamesTargets(ChecksTarget, Protocol):
    """A sink that can name the files or objects that it writes, since a source must not read them."""

    def writes(self, runs: Iterable[object] = ()) -> tuple[Target, ...]:
        """Return every file that a delivery writes: output, failures, manifest, and their temporary names.

        Called after the placeholders are filled in. `runs`: include the names under which outputs of these runs are
        kept when one with fewer rows replaces them.
        """
        ...


@runtime_checkable
class WritesFiles(NamesTargets, Protocol):
    """A sink whose deliveries are files, on this machine or in a store."""

    @property
    def path(self) -> Target:
        """The output file or object, whose path may have placeholders. Failures and manifest are beside it."""
        ...


@runtime_checkable
class SeesItsDelivery(Protocol):
    """A sink that can tell, without reading its files, whether a delivery is still there as it was written."""

    def standing(self) -> tuple[str, Mapping[str, object]] | None:
        """Return a text that changes with any file of the delivery or setting of the sink, and the manifest.

        Called after the placeholders are filled in. Returns None if there is no whole delivery, or it cannot be told.
        """
        ...


class DataPlane(Protocol):
    """Items in, answers out."""

    @property
    def max_in_flight(self) -> int | None:
        """The maximum number of useful requests in flight; None if only the policy limits it."""
        ...

    @property
    def limits(self) -> Limits:
        """The limits on the size of one request."""
        ...

    @property
    def quiet_until(self) -> float:
        """The moment on the monotonic clock until which the server's quota allows no requests."""
        ...

    async def metrics(self) -> str | None:
        """Return the server's Prometheus metrics as text; None if it has none."""
        ...

    async def ask(self, requests: Sequence[bytes], again: Again | None = None) -> Sequence[object]:
        """Ask once. Returns one entry per request (JSON): the decoded answer, or a `RequestFailed`.

        An answer is wrapped in an `Answer` if the server counts its tokens. If more than one request is sent, `again`
        is awaited before each further one, since each may cost money; if it returns False, no more are sent.

        Raises `RequestFailed` if the request failed as a whole, `EndpointLost` if the endpoint is gone,
        `EndpointRefused` if it would refuse every request, `NoRoom` if this machine cannot send it now.
        """
        ...


@runtime_checkable
class KnowsItsMachine(Protocol):
    """A data plane that knows what computes the answers."""

    @property
    def computed_with(self) -> Mapping[str, object]:
        """The device, number format, threads and versions that compute the answers; empty if they are not known."""
        ...


@runtime_checkable
class StreamsAnswers(Protocol):
    """A data plane whose server can send answers in parts, so that a load test can see when the first one comes."""

    @property
    def streams(self) -> bool:
        """Whether its wire can ask for that."""
        ...

    async def ask_in_parts(self, requests: Sequence[bytes], first: Callable[[], None]) -> Sequence[object]:
        """Ask once, as `DataPlane.ask`; `first` is called once the first of the model's words are there."""
        ...


class ControlPlane(Protocol):
    """Wakes an endpoint, reads its state, pauses it. Calls have a deadline, after which they raise `EndpointSilent`."""

    @property
    def terms(self) -> Terms | None:
        """How the endpoint must be left; None if it ends with this process, or is not ours to pause."""
        ...

    @property
    def look_every(self) -> float:
        """The minimum number of seconds between two calls of `state`."""
        ...

    @property
    def status_text(self) -> str:
        """The status text of the last look, in the provider's own words: "initializing, 0 of 1 replicas"."""
        ...

    @property
    def installing(self) -> bool:
        """Whether its requirements are still being installed, which does not count towards the startup timeout."""
        ...

    async def resume(self) -> None:
        """Ask the endpoint to wake, without waiting until it is awake. Raises `EndpointFailed` if it never will be."""
        ...

    async def state(self) -> EndpointState:
        """Return the endpoint's current state. Raises `EndpointRefused` if we may not read it."""
        ...

    async def price(self) -> float | None:
        """Return dollars per hour from the provider's price list; None if it has none. Needs `state` first. One try."""
        ...

    async def answers(self) -> bool:
        """Whether the data plane would answer a request now. Contacts the data plane, never the provider."""
        ...

    async def pause(self, *, to_zero: bool = False) -> None:
        """Ask the endpoint to pause until it is resumed, or (`to_zero`) to sleep until the next request.

        Safe to repeat, and to call before any resume.
        """
        ...

    def connect(self, policy: Policy) -> AbstractAsyncContextManager[DataPlane]:
        """Open the data plane of an awake endpoint."""
        ...


@runtime_checkable
class Restarts(ControlPlane, Protocol):
    """A control plane of servers that we start ourselves."""

    async def restart(self) -> None:
        """End a server that runs but fails every request. `state` is then paused, and `resume` starts it again."""
        ...


@runtime_checkable
class Metered(ControlPlane, Protocol):
    """A control plane of a provider that ends each server after a time that we set, and says what it bills."""

    def prepare(self, window: str, seconds: float) -> None:
        """Before `resume`: say for which awake window servers are started, and for how many seconds at most."""
        ...

    async def billed(self, window: str) -> Billed | None:
        """Return what the provider bills for all servers that were started for this window; None if it has none."""
        ...


class Member(ControlPlane, Protocol):
    """One server of an endpoint that has several. It has no terms, since debts belong to the endpoint.

    It is resumed, asked, lost and paused independently of the other members. Two are the same member only if they are
    the same object.
    """

    @property
    def name(self) -> str:
        """The member's name for the user: "small replica 2"."""
        ...


@runtime_checkable
class HasMembers(Protocol):
    """A control plane of several servers, which may join and leave while the endpoint is used."""

    def members(self) -> AsyncGenerator[Sequence[Member]]:
        """Yield all present members, and yield them again after each change. Ends if there will be no more changes."""
        ...


@runtime_checkable
class Endpoint(Protocol):
    """A model server that we can wake and pause: a frozen value for job files."""

    @property
    def name(self) -> str:
        """The endpoint's name in the ledger, for holds and debts."""
        ...

    @property
    def startup_timeout(self) -> float:
        """The maximum number of seconds from resume to awake."""
        ...

    def identity(self, policy: Policy) -> Mapping[str, object]:
        """Return everything about the endpoint that affects an answer: model, revision, task, parameters, wire.

        May read files. Raises `UsageError` if the model is not known.
        """
        ...

    def control(self) -> AbstractAsyncContextManager[ControlPlane]:
        """Open the control plane. Everything that it opened is closed when the block ends."""
        ...


@runtime_checkable
class ChecksRequests(Protocol):
    """An endpoint that can tell, without being awake, which requests it would refuse."""

    async def unsendable(self, request: bytes, policy: Policy) -> RequestFailed | None:
        """Return why this request (JSON) would be refused without being sent; None if it would be sent."""
        ...


@runtime_checkable
class PricedByUse(Protocol):
    """An endpoint that may charge by the request or by the token, whether it is awake or not."""

    @property
    def use_price(self) -> UsePrice | None:
        """The price, as the user has set it; None if it charges nothing that we know of."""
        ...


@runtime_checkable
class Hook(Protocol):
    """A receiver that is notified how a run ended, at least once. Repeated notifications have the same id."""

    def describe(self) -> str:
        """Return a short description. It is stored in the ledger, so it must not contain a secret."""
        ...

    async def notify(self, notification: Notification) -> None:
        """Send a notification, within its own deadline. Raises `NotificationFailed` if that fails."""
        ...


class EventListener(Protocol):
    """A receiver of the events of runs: a progress bar, a log, metrics."""

    def emit(self, event: RunEvent) -> None:
        """Handle an event. Called in the event loop, in order; must neither block nor raise."""
        ...


@runtime_checkable
class AnsweredOtherwise(Protocol):
    """An endpoint whose answers had another shape in earlier releases. A job with such answers continues with it."""

    @property
    def earlier_beginning(self) -> str | None:
        """How an answer of that shape begins, as JSON; None if there was no other shape."""
        ...

    def as_earlier(self) -> Endpoint:
        """Return the same endpoint with answers of that shape."""
        ...


@runtime_checkable
class ChoosesByMachine(Protocol):
    """An endpoint with settings that follow the machine and shape answers. A job keeps what its runs have chosen."""

    def choice(self) -> str | None:
        """Return what was chosen, in a sentence for the user; None if nothing differs from what the user declared."""
        ...

    def choosing_as_in(self, earlier: Sequence[Mapping[str, object]], policy: Policy) -> Endpoint:
        """Return the same endpoint as in earlier runs that had these identities, the latest first. May read files."""
        ...
