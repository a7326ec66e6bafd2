"""`Job`, the declaration in a job file.

A job without a sink leaves its answers in the ledger. It keeps only the columns in `Job.keep`, and none by default:
the ledger would hold a copy of every kept value for each run, and the ids are enough to join the answers with the
input. Whatever delivers is skipped; the manifest has no files.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

from orchestrator.domain.errors import UsageError
from orchestrator.domain.file_names import divided
from orchestrator.domain.item import columns_to_keep
from orchestrator.domain.policy import Policy
from orchestrator.domain.request import Renderer, RequestMaker
from orchestrator.domain.schedule import Cron
from orchestrator.hooks.command import CommandHook
from orchestrator.own_code import bound_state, own_code
from orchestrator.own_sources import undisturbed
from orchestrator.ports import Endpoint, Hook, ReadsResults, Sink, Source, WritesFiles

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_NAME = re.compile(r"[A-Za-z][\w.-]*")  # a job's name
_ROUTE_NAME = re.compile(r"[A-Za-z][\w-]*", re.ASCII)
_ONLY_ROUTE = "endpoint"  # the name of the route of a rollout that has one endpoint, or one list of them
_REQUEST = "{text}"
_PLACES = frozenset({"path", "glob"})  # settings of sources: the same input may have moved


@dataclass(frozen=True, slots=True)
class Weighted:
    """One of several endpoints of a job, which gets `weight` times `Policy.concurrency` requests at once."""

    endpoint: Endpoint
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.endpoint, Endpoint):
            raise TypeError(f"endpoint={self.endpoint!r} is not an endpoint; see `orchestrator.endpoints`")
        if not self.weight > 0:
            raise ValueError(f"an endpoint's weight must be above 0, not {self.weight!r}")


@dataclass(frozen=True, slots=True)
class Route:
    """A name under which a rollout asks, and the equivalent endpoints that answer. The first one is its identity."""

    name: str
    endpoints: tuple[Weighted, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """Which source feeds which endpoint into which sink.

    `name`: the job's name in the ledger. Runs with the same name share their answers.
    `endpoint`: one endpoint, or a list of equivalent ones (each may be `Weighted`), each of which takes as many
    requests as it has room for. The first one determines the identity of answers, so that they stay valid when other
    endpoints join or leave.
    `fallback`: an endpoint for the remaining items once fewer than `Policy.fallback_below` are left, or if no other
    endpoint can be used. Its answers count like those of the others.
    `sink`: where the answers go. By default they stay in the ledger, from which a `Result`, another job's `RunSource`
    and `orchestrator export` read them.
    `request`: makes the request body from a row: a template (`"{text}"`), a dict of templates, or a function.
    `incremental`: items that earlier runs of the job have delivered are left out, whatever file they come from. Each
    run processes new items only and writes its own file, so the path of its sink must contain `{run}`.
    `allow_empty`: if a source that had rows in an earlier run has none now, the output may be replaced by an empty one.
    By default this is refused, since the source is more likely to have been lost.
    `parse`: makes the output from an answer. An exception discards the item with that reason (see
    `Policy.parse_attempts`). By default the answer is the output.
    `schedule`: when a daemon (`orchestrator serve`) that watches the file's folder queues a run.
    `on_finish`, `on_failure`: hooks to notify when a run finishes, and when one fails or stops early unintentionally:
    a command (a list of arguments, run without a shell), a `Webhook`, or a list of these; docs/report.md.
    `after`, `after_end`: the name of a job, or several. A queued run of this job waits for the success, or for any end,
    of the run that is that job's latest when this one is queued, as with `submit --after JOB`; docs/queue.md.
    `keep`: the columns of the input that are kept beside the answers of a job without a sink. A sink has its own.
    `rollout`: an async function of a row and an `Ask`, with which it makes any number of requests; what it returns is
    the output. `endpoint` is then one of the above, or a mapping of such by the names for `ask(..., to=NAME)`, of which
    the first is the default. It replaces `request`, `parse` and `fallback`; docs/rollouts.md.
    """

    name: str
    source: Source
    endpoint: (
        Endpoint | Sequence[Endpoint | Weighted] | Mapping[str, Endpoint | Weighted | Sequence[Endpoint | Weighted]]
    )
    sink: Sink | None = None
    request: RequestMaker = _REQUEST
    parse: Callable[[Any], object] | None = None  # the type of an answer depends on the endpoint
    policy: Policy = field(default_factory=Policy)
    fallback: Endpoint | None = None
    schedule: Cron | None = None
    incremental: bool = False
    allow_empty: bool = False
    on_finish: Hook | Sequence[str | Hook | Sequence[str]] | None = None
    on_failure: Hook | Sequence[str | Hook | Sequence[str]] | None = None
    after: str | Sequence[str] = ()
    after_end: str | Sequence[str] = ()
    keep: Sequence[str] = ()
    rollout: Callable[[Any, Any], Awaitable[object]] | None = None  # users annotate the row as they like
    endpoints: tuple[Weighted, ...] = field(init=False, repr=False)  # of all routes
    routes: tuple[Route, ...] = field(init=False, repr=False)  # just one, unless `endpoint` is a mapping
    finish_hooks: tuple[Hook, ...] = field(init=False, repr=False)
    failure_hooks: tuple[Hook, ...] = field(init=False, repr=False)
    waits_for: tuple[tuple[str, bool], ...] = field(init=False, repr=False)  # names of jobs; True means any end

    def __post_init__(self) -> None:
        object.__setattr__(self, "routes", _routes(self.endpoint))
        object.__setattr__(self, "endpoints", tuple(one for route in self.routes for one in route.endpoints))
        object.__setattr__(self, "finish_hooks", _hooks("on_finish", self.on_finish))
        object.__setattr__(self, "failure_hooks", _hooks("on_failure", self.on_failure))
        waits_for = [(name, False) for name in _names("after", self.after)]
        waits_for += [(name, True) for name in _names("after_end", self.after_end)]
        object.__setattr__(self, "waits_for", tuple(waits_for))
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"a job's name must begin with a letter and have only letters, digits, '-', '_' and '.': {self.name!r}"
            )
        if not isinstance(self.source, Source):
            raise TypeError(f"source={self.source!r} is not a source; see `orchestrator.sources`")
        self._check_sink()
        self._check_endpoints()
        self._check_rollout()
        if self.name in {name for name, _ in self.waits_for}:
            raise ValueError(
                f"job {self.name!r} cannot wait for itself; its runs are executed one after another anyway"
            )
        if isinstance(self.source, ReadsResults) and self.source.job == self.name:
            raise ValueError(f"job {self.name!r} cannot read its own results: name another job in its source")
        if self.parse is not None and not _is_plain(self.parse):
            raise TypeError("parse must be a function of an answer that returns the output; not async, no generator")
        if callable(self.request) and not _is_plain(self.request):
            raise TypeError("request must be a function of a row that returns the body; not async, no generator")
        if self.schedule is not None and not isinstance(self.schedule, Cron):
            raise TypeError(f"schedule={self.schedule!r} is not a schedule; write schedule=Cron('0 2 * * *')")
        Renderer(self.request)  # raises if the template is invalid

    def _check_sink(self) -> None:
        if self.sink is None:
            object.__setattr__(self, "keep", columns_to_keep(self.keep))
            return
        if not isinstance(self.sink, Sink):
            raise TypeError(f"sink={self.sink!r} is not a sink; see `orchestrator.sinks`")
        if self.keep:
            raise ValueError("the sink says which columns are kept: give keep= to it, not to the job")
        if self.incremental and "run" not in self.sink.placeholders:
            raise ValueError(_needs_run(self.sink))

    def _check_endpoints(self) -> None:
        if not self.endpoints:
            raise ValueError("a job needs an endpoint")
        if self.fallback is not None and not isinstance(self.fallback, Endpoint):
            raise TypeError(f"fallback={self.fallback!r} is not an endpoint; see `orchestrator.endpoints`")
        names = [one.endpoint.name for one in self.endpoints] + ([self.fallback.name] if self.fallback else [])
        if len(set(names)) < len(names):
            remedy = "; name a server once, and put what differs into the requests, with step="
            remedy = remedy if self.rollout is not None else ""
            raise ValueError(f"a job's endpoints need different names, not {', '.join(names)}{remedy}")
        if self.policy.fallback_below and self.fallback is None:
            raise ValueError("policy.fallback_below needs a fallback= endpoint in the job")

    def _check_rollout(self) -> None:
        if self.rollout is None:
            if isinstance(self.endpoint, Mapping):
                raise ValueError("endpoint= names endpoints for a rollout: give rollout=, or a list of endpoints")
            if self.policy.item_timeout is not None:
                raise ValueError("policy.item_timeout needs a rollout= in the job; policy.timeout limits a request")
            if self.policy.max_asks != Policy().max_asks:
                raise ValueError("policy.max_asks needs a rollout= in the job; without one, each item is one request")
            return
        if not _is_rollout(self.rollout):
            raise TypeError(f"rollout={self.rollout!r} is not an async function of two arguments, a row and `ask`")
        unused = [name for name in ("parse", "fallback") if getattr(self, name) is not None]
        unused += ["request"] if self.request != _REQUEST else []
        unused += ["policy.parse_attempts"] if self.policy.parse_attempts > 1 else []
        if unused:
            raise ValueError(
                f"a job with a rollout has no use for {', '.join(unused)}: "
                "the function makes its requests and its output, and names its endpoints"
            )

    @property
    def endpoint_names(self) -> frozenset[str]:
        """The names of all endpoints, including the fallback."""
        names = {one.endpoint.name for one in self.endpoints}
        return frozenset(names | ({self.fallback.name} if self.fallback is not None else set()))

    @property
    def kept(self) -> tuple[str, ...]:
        """The columns of the input that are kept with the answers."""
        return tuple(self.keep) if self.sink is None else self.sink.keep

    @property
    def output(self) -> str | None:
        """Where it delivers, for the user; None if the answers stay in the ledger."""
        return None if self.sink is None else self.sink.describe()

    def identity(self) -> Mapping[str, object]:
        """Return everything that affects an answer besides the request: the endpoint, or the rollout and its routes.

        May read files. Raises `UsageError` for a parameter that JSON lacks, such as NaN, which would be sent as null.
        """
        if self.rollout is None:
            return _numbers_checked(self.endpoints[0].endpoint.identity(self.policy))
        routes = {
            route.name: _numbers_checked(route.endpoints[0].endpoint.identity(self.policy)) for route in self.routes
        }
        return {"rollout": _with_state(fingerprint_of(self.rollout), self.rollout), "routes": routes}

    def renderer(self) -> Callable[[Mapping[str, object]], object]:
        """Return the function that makes an item's request from the columns of its row; for a rollout, these are it."""
        return Renderer(self.request) if self.rollout is None else dict

    def fingerprint(self, identity: Mapping[str, object], limit: int | None) -> str:
        """Return the hex SHA-256 of everything that affects what a run asks and delivers."""
        request = fingerprint_of(self.request) if callable(self.request) else self.request
        parts = [self.name, identity, request, fingerprint_of(self.parse), self.kept, limit]
        parts += ["incremental"] if self.incremental else []
        if not callable(self.request) and (ordered := json.dumps(request, default=str)) != json.dumps(
            request, sort_keys=True, default=str
        ):
            parts += [
                ordered
            ]  # the order of keys matters: requests have the template's order, and a run keeps them as they are
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()

    def reads_as(self) -> str:
        """Return the hex SHA-256 of what shapes rows besides the input: the source's kind, settings and own code."""
        kind: Any = type(self.source)
        settings = (one for one in fields(kind) if one.init) if is_dataclass(kind) else ()
        given = {
            one.name: getattr(self.source, one.name)
            for one in settings
            if one.name not in _PLACES and (one.default is MISSING or getattr(self.source, one.name) != one.default)
        }
        parts = [kind.__qualname__, given, *own_code(self.source)]
        text = json.dumps(parts, sort_keys=True, default=lambda value: type(value).__qualname__)
        return hashlib.sha256(text.encode()).hexdigest()


def _routes(endpoint: object) -> tuple[Route, ...]:
    """Return the endpoints that a job was given by name. Raises `ValueError` for a name that cannot be one."""
    if not isinstance(endpoint, Mapping):
        return (Route(_ONLY_ROUTE, _weighted(endpoint)),)
    for name, given in endpoint.items():
        if not isinstance(name, str) or not _ROUTE_NAME.fullmatch(name):
            raise ValueError(
                f"a name in endpoint= must begin with a letter and have only letters, digits, '-' and '_': {name!r}"
            )
        if isinstance(given, Sequence) and not given:
            raise ValueError(f"endpoint= has no endpoint for {name!r}")
    return tuple(Route(name, _weighted(given)) for name, given in endpoint.items())


def _weighted(given: Any) -> tuple[Weighted, ...]:
    some = given if isinstance(given, Sequence) else [given]
    return tuple(one if isinstance(one, Weighted) else Weighted(one) for one in some)


def _is_rollout(function: object) -> bool:
    if not callable(function):
        return False
    if not inspect.iscoroutinefunction(function) and not inspect.iscoroutinefunction(type(function).__call__):
        return False
    try:
        inspect.signature(function).bind("row", "ask")
    except (TypeError, ValueError):
        return False
    return True


def _is_plain(function: object) -> bool:
    """Whether it can be called with one argument, and returns what it makes of it at once."""
    if not callable(function):
        return False
    called = (function, type(function).__call__)
    if any(inspect.iscoroutinefunction(one) or _yields(one) for one in called):
        return False
    try:
        inspect.signature(function).bind("given")
    except TypeError:
        return False
    except ValueError:  # a function written in C need not tell
        pass
    return True


def _yields(function: object) -> bool:
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def _needs_run(sink: Sink) -> str:
    if isinstance(sink, WritesFiles):
        stem, suffix = divided(sink.path.name)
        name = f"{stem}-{{run}}{suffix}"
        return f"each run of an incremental job writes its own file: put {{run}} into the sink's path, as in {name}"
    return f"each run of an incremental job has its own output: put {{run}} into the name of {sink.describe()}"


def _hooks(name: str, given: Hook | Sequence[str | Hook | Sequence[str]] | None) -> tuple[Hook, ...]:
    """Return the hooks. A list of strings is one command; any other list has one hook per entry."""
    if given is None:
        return ()
    if isinstance(given, Hook):
        return (given,)
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise TypeError(
            f"{name}={given!r} is neither a Webhook nor a command, which is a list like ['notify', '--done']"
        )
    if all(isinstance(part, str) for part in given):
        return (CommandHook([part for part in given if isinstance(part, str)]),)
    return tuple(hook for one in given for hook in _hooks(name, one))


def _names(argument: str, given: object) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else given
    if isinstance(names, Sequence):
        found = tuple(name for name in names if isinstance(name, str) and _NAME.fullmatch(name))
        if len(found) == len(names):
            return found
    raise TypeError(f"{argument}={given!r} is neither a job's name nor a list of names")


def fingerprint_of(function: Callable[..., object] | None) -> str:
    """Return a hash that changes with a function's text, or that of the user's code that it refers to; "" for None."""
    if function is None:
        return ""
    return hashlib.sha256("".join([_text_of(function), *own_code(function)]).encode()).hexdigest()


def _numbers_checked(identity: Mapping[str, object]) -> Mapping[str, object]:
    """Return it. Raises `UsageError` if one of its numbers has no JSON form."""
    left: list[tuple[object, object]] = list(identity.items())
    while left:
        name, value = left.pop()
        if isinstance(value, float) and not isfinite(value):
            raise UsageError(f"{name} of the endpoint is {value}, which JSON lacks: give a number, or leave it out")
        if isinstance(value, Mapping):
            left += value.items()
        elif isinstance(value, list | tuple):
            left += [(name, one) for one in value]
    return identity


def _with_state(fingerprint: str, rollout: Callable[..., object]) -> str:
    """Return a hash that also changes with the attributes of a callable object; these may be secret."""
    state = bound_state(rollout)
    return hashlib.sha256("\n".join([fingerprint, *state]).encode()).hexdigest() if state else fingerprint


def _text_of(function: Callable[..., object]) -> str:
    try:
        return undisturbed(lambda: inspect.getsource(function))  # it parses for a class
    except (OSError, TypeError):  # defined interactively, built in, or a callable object
        code = getattr(function, "__code__", None)
        return f"{code.co_code!r}{code.co_consts!r}{code.co_names!r}" if code else repr(type(function))
