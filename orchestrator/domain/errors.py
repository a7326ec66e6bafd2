"""All named failures, sorted by what they stop: the command, a run, an endpoint or an item."""

from __future__ import annotations

from enum import StrEnum


class OrchestratorError(Exception):
    """An expected failure. Its text is one line that names the problem and the remedy."""


def described(error: BaseException, *, bare: type[BaseException] = OrchestratorError) -> str:
    """Return `Name: message` for an exception; the message alone for instances of `bare`."""
    name = type(error).__name__
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - the `__str__` of a third-party class may be broken
        return name
    if isinstance(error, bare):
        return message
    return f"{name}: {message}" if message else name


# -- the command ------------------------------------------------------------------------------------------------------


class UsageError(OrchestratorError):
    """The user's input cannot be used: a job file, an option, a source, a folder (exit code 2)."""


class NoFiles(UsageError):
    """The pattern of a source matches no file; for an incremental job this means that nothing is new."""


class InvalidBatch(UsageError):
    """The batch cannot be created as asked. `param`: the field of the request that is wrong."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class BatchOver(UsageError):
    """The batch has ended, so it cannot be cancelled."""


class LedgerError(OrchestratorError):
    """The ledger cannot be used: locked, full, corrupt, read-only, or newer than this program (exit code 2)."""


class DamagedFile(LedgerError):
    """The content of a stored file is not the one that was written."""


class LedgerLocked(LedgerError):
    """Another process held the ledger's write lock for too long."""


# -- the run ----------------------------------------------------------------------------------------------------------


class RunFailed(OrchestratorError):
    """The run cannot succeed as it is: going on would repeat the failure. Committed results stay (exit code 1)."""


class RunStopped(OrchestratorError):
    """The run ended early; running it again continues it (exit code 4)."""


class AskedToStop(RunStopped):
    """This process was asked to stop; another one may continue the run at once."""


class CanaryEnded(AskedToStop):
    """Only a few items were to be asked, and they are."""


class TooExpensive(RunStopped):
    """What is left to ask would cost more than the run may, by an estimate from the items asked first."""


class Interrupted(RunStopped):
    """Whoever started the run asked it to stop: Ctrl-C, SIGTERM, a cancellation."""


class Busy(RunStopped):
    """Another process is executing a run of the same job."""


class GaveWay(RunStopped):
    """Another queued run needs the same endpoint; this one continues after it."""


class EndpointFailed(RunFailed):
    """The endpoint does not start: unknown model, crash while loading, wrong address."""


class EndpointRefused(RunFailed):
    """The endpoint answers, but would refuse every request in the same way: bad token, wrong path.

    `status` and `body`: of its answer, as in `RequestFailed`. `forbidden`: it refuses our token (401, 403).
    """

    status: int | None = None
    body: str | None = None
    forbidden: bool = False


class PauseUnconfirmed(RunFailed):
    """The endpoint was asked to pause, but the pause was not confirmed in time: it may still cost money."""


class EndpointSilent(RunStopped):
    """The control plane still does not answer, or answers nonsense, after several tries."""


class StorageSilent(RunStopped):
    """Where the rows come from, or the answers go, does not answer or breaks off; a later try may succeed."""


class OutOfCredit(RunStopped):
    """The paying account has no credit left; the run can continue once it has.

    `status` and `body`: of the endpoint's answer, as in `RequestFailed`.
    """

    status: int | None = None
    body: str | None = None


class Fenced(RunStopped):
    """This process was presumed dead, and its leases now belong to another one."""


class NotAwake(RunStopped):
    """The endpoint was not awake in time; nothing is lost, and a later try may work."""


class NoCapacity(NotAwake):
    """The provider reports that it has no machine for the endpoint at the moment."""


class Held(RunStopped):
    """The user holds the run, and its process has no reason to wait."""


class WindowOver(RunStopped):
    """The policy's window is closed; it opens next at `opens_at`, in seconds since 1970 UTC."""

    def __init__(self, message: str, opens_at: float) -> None:
        super().__init__(message)
        self.opens_at = opens_at


class Snoozed(RunStopped):
    """Nothing can be asked before `until`, in seconds since 1970 UTC. `fruitless`: the claim has settled nothing."""

    def __init__(self, message: str, until: float, *, fruitless: bool) -> None:
        super().__init__(message)
        self.until = until
        self.fruitless = fruitless


class BudgetSpent(RunStopped):
    """A budget is spent; a new one begins at `until`, in seconds since 1970 UTC. None for the budget of one run."""

    def __init__(self, message: str, until: float | None = None) -> None:
        super().__init__(message)
        self.until = until


# -- the endpoint -----------------------------------------------------------------------------------------------------


class LossCause(StrEnum):
    """Why requests that were in flight get no answer, and their items are asked again without counting an attempt."""

    STARTING = "starting"  # the endpoint says that it is not ready yet
    FAILING = "failing"  # it fails every request, including one that it has answered before
    CRASHED = "crashed"  # it died over what it was asked
    UNREACHABLE = "unreachable"  # it was paused or deleted, or nothing answers at its address
    CUT_SHORT = "cut_short"  # we gave them up: a stop, a spent budget, or another failure ended the session


class EndpointLost(Exception):
    """The endpoint stopped answering; no attempt is counted.

    `blames_items`: it died while items were in flight, and one of them may be the cause.
    `starting`: it reports that it is not ready yet, so waiting is enough; `retry_after` is the number of seconds, if it
    gave one. `fails_all`: it fails every request, including one that it has answered before. `requests`: how many were
    in flight then. `charged`: the only item in flight was charged with it, and others had been answered.
    """

    requests: int = 0
    charged: bool = False

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

    @property
    def cause(self) -> LossCause:
        """What became of the requests in flight, as counted."""
        if self.starting:
            return LossCause.STARTING
        if self.fails_all:
            return LossCause.FAILING
        return LossCause.CRASHED if self.blames_items else LossCause.UNREACHABLE


class NoRoom(Exception):
    """This machine lacks the descriptors, ports or buffers for another connection. The endpoint is not at fault."""


# -- the item ---------------------------------------------------------------------------------------------------------


class FailureKind(StrEnum):
    """Why one attempt of one item failed; `verdict.judge` decides what follows."""

    REJECTED = "rejected"  # the server says that the request itself is wrong (400, 413, 422 ...)
    DUBIOUS = "dubious"  # the server blames the request, but its message may mean a problem of its own
    RATE_LIMITED = "rate_limited"  # 429, 529, overloaded: too many requests at once
    UNAVAILABLE = "unavailable"  # 408, 5xx: a problem on the server's side
    TIMEOUT = "timeout"  # no complete answer within the attempt's deadline
    CONNECTION = "connection"  # the connection broke during the request
    GARBLED = "garbled"  # status 200, but no answer: invalid JSON, null instead of numbers, an error in the body
    BAD_ANSWER = "bad_answer"  # status 200 with a well-formed answer that is not what was asked for
    CRASHED = "crashed"  # the endpoint died while only this item was in flight
    PARSE = "parse"  # the job's own `parse` raised
    ROLLOUT = "rollout"  # the job's own rollout raised, or asked too often
    UNREADABLE = "unreadable"  # the source could not read this row, or no request could be made from it


class RequestFailed(Exception):
    """One attempt of one item failed. `retry_after` is in seconds, if the server gave it.

    `most`: the server accepts at most this many items per request, so the items are not at fault. `tokens`: those used
    by the failed attempt, in and out, if the server reported them. `sent`: whether a request was sent at all.
    `body`: what the server answered, if the policy keeps it.
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
        self.body: str | None = None
        self.kind = kind
        self.message = message
        self.status = status
        self.retry_after = retry_after
