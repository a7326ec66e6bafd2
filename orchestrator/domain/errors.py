"""Every failure we name, sorted by what it stops: an item, an endpoint, a run, or the command."""

from __future__ import annotations

from enum import StrEnum


class OrchestratorError(Exception):
    """A failure that is expected. Its text is one line that names the thing and the remedy."""


def described(error: BaseException, *, bare: type[BaseException] = OrchestratorError) -> str:
    """What an exception says, after its name; without the name where it is of the kind whose text says enough."""
    name = type(error).__name__
    try:
        said = str(error)
    except Exception:  # noqa: BLE001 - of somebody else's class, which may be broken
        return name
    if isinstance(error, bare):
        return said
    return f"{name}: {said}" if said else name


# -- the command ------------------------------------------------------------------------------------------------------


class UsageError(OrchestratorError):
    """What the user gave cannot be used: a job file, an option, a source, a folder (exit code 2)."""


class NoFiles(UsageError):
    """The pattern of a source matches no file; for an incremental job that means that nothing is new."""


class LedgerError(OrchestratorError):
    """The ledger cannot be used: locked, full, corrupt, read-only, or newer than this program (exit code 2)."""


class LedgerLocked(LedgerError):
    """Another process holds the ledger's write lock for too long."""


# -- the run ----------------------------------------------------------------------------------------------------------


class RunFailed(OrchestratorError):
    """Going on would only repeat the same failure; what is committed stays (exit code 1)."""


class RunStopped(OrchestratorError):
    """The run ended early and can be continued by running it again (exit code 4)."""


class AskedToStop(RunStopped):
    """Somebody asked this process to stop; another one may go on at once."""


class Busy(RunStopped):
    """Another process is executing a run of the same job."""


class GaveWay(RunStopped):
    """Another queued run asks the same endpoint; this one goes on after it."""


class EndpointFailed(RunFailed):
    """The endpoint does not come up: unknown model, crash while loading, wrong address."""


class EndpointRefused(RunFailed):
    """The endpoint answers, but would refuse every request alike: bad token, wrong path."""


class PauseUnconfirmed(RunFailed):
    """The endpoint was asked to pause and was not seen paused before the deadline: it may still cost money."""


class EndpointSilent(RunStopped):
    """The control plane does not answer, or answers nonsense, however often it is asked."""


class OutOfCredit(RunStopped):
    """The account that pays has no credit left; with credit the run goes on."""


class Fenced(RunStopped):
    """This process was taken for dead and its leases now belong to another."""


class NotAwake(RunStopped):
    """The endpoint was not awake in time; nothing was lost but time, and the same may work later."""


class NoCapacity(NotAwake):
    """The provider has no machine for the endpoint just now, as it says itself."""


class Held(RunStopped):
    """Somebody holds the run, and its process has no reason to wait with it."""


class WindowOver(RunStopped):
    """The policy's window is closed; `opens_at`, in seconds since 1970 UTC, is when it opens next."""

    def __init__(self, message: str, opens_at: float) -> None:
        super().__init__(message)
        self.opens_at = opens_at


class Snoozed(RunStopped):
    """Nothing can be asked before `until`, in seconds since 1970 UTC. `fruitless`: nothing was settled before that."""

    def __init__(self, message: str, until: float, *, fruitless: bool) -> None:
        super().__init__(message)
        self.until = until
        self.fruitless = fruitless


class BudgetSpent(RunStopped):
    """A budget is spent; `until`, in seconds since 1970 UTC, is when there is a new one: None for that of one run."""

    def __init__(self, message: str, until: float | None = None) -> None:
        super().__init__(message)
        self.until = until


# -- the endpoint -----------------------------------------------------------------------------------------------------


class EndpointLost(Exception):
    """The endpoint stopped answering; no attempt is counted.

    `blames_items`: it died with the items in flight in its hands, and one of them may be why.
    `starting`: it says of itself that it is not ready yet, so waiting is all that it takes; `retry_after` is how many
    seconds, where it named them. `fails_all`: it fails whatever it is asked, also what it has answered before.
    """

    def __init__(
        self,
        message: str,
        *,
        blames_items: bool = False,
        starting: bool = False,
        fails_all: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.blames_items = blames_items
        self.fails_all = fails_all
        self.starting = starting
        self.retry_after = retry_after


class NoRoom(Exception):
    """This machine lacks what one more connection takes: descriptors, ports, buffers. Nobody else's fault."""


# -- the item ---------------------------------------------------------------------------------------------------------


class FailureKind(StrEnum):
    """Why one attempt of one item failed; `verdict.judge` decides what follows."""

    REJECTED = "rejected"  # the server says the request itself is wrong (400, 413, 422 ...)
    DUBIOUS = "dubious"  # it says so, or that it failed on it, in words that may stand for its own trouble
    RATE_LIMITED = "rate_limited"  # 429, 529, overloaded: too many at once
    UNAVAILABLE = "unavailable"  # 408, 5xx: trouble on the server's side
    TIMEOUT = "timeout"  # no complete answer within the attempt's deadline
    CONNECTION = "connection"  # the connection broke in mid-request
    GARBLED = "garbled"  # it answered 200 with what is no answer at all: no JSON, a null for numbers, an error in it
    BAD_ANSWER = "bad_answer"  # it answered 200 with a whole answer that is not what was asked for
    CRASHED = "crashed"  # the endpoint died while this item was alone in flight
    PARSE = "parse"  # the job's own `parse` raised
    UNREADABLE = "unreadable"  # the source could not read this row, or the request could not be made from it


class RequestFailed(Exception):
    """One attempt of one item failed. `retry_after` is in seconds, where the server named it.

    `most`: the server takes so many items in one request and no more; the items are not to blame. `tokens`: what it
    took all the same, in and out, where the server said so. `sent`: whether a request was made at all.
    """

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        most: int | None = None,
    ) -> None:
        super().__init__(message)
        self.most = most
        self.tokens = 0
        self.sent = True
        self.kind = kind
        self.message = message
        self.status = status
        self.retry_after = retry_after
