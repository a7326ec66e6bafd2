"""FLOOR 2: Job, what a file in jobs/ declares."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.domain.placeholders import placeholders_in
from orchestrator.domain.policy import Policy
from orchestrator.domain.request import Renderer, RequestMaker
from orchestrator.domain.schedule import Cron
from orchestrator.hooks.command import CommandHook
from orchestrator.own_code import own_code
from orchestrator.ports import Endpoint, Hook, Sink, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NAME = re.compile(r"[A-Za-z][\w.-]*")  # of a job


@dataclass(frozen=True, slots=True)
class Weighted:
    """One of several endpoints of a job: it gets `weight` times as many requests at once as `Policy.concurrency`."""

    endpoint: Endpoint
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.endpoint, Endpoint):
            raise TypeError(f"endpoint={self.endpoint!r} is not an endpoint; see `orchestrator.endpoints`")
        if not self.weight > 0:
            raise ValueError(f"an endpoint's weight is above 0, not {self.weight!r}")


@dataclass(frozen=True, slots=True)
class Job:
    """Which source feeds which endpoint into which sink.

    `name` names the job in the ledger: runs of one name share their answers.
    `endpoint`: one, or a list of endpoints (or `Weighted` ones) that are all as good: each takes what it has room for.
    An answer's identity is that of the first, so that answers stay valid when others join or leave.
    `fallback`: an endpoint that takes what is left when fewer than `Policy.fallback_below` items are, or when no other
    can be used. Its answers count as theirs.
    `request` makes the request body from a row: a template (`"{text}"`), a dict of templates, or a function.
    `incremental`: what earlier runs of the job have delivered is left out, whatever file it comes in: each run takes
    what is new, and writes a file of its own, so the sink's path has a `{run}` in it.
    `allow_empty`: a source that had rows in an earlier run may have none now, and its output be replaced by an empty
    one; else that is refused, as the source has rather been lost.
    `parse` makes the output from an answer; what it raises discards that item with the reason (see
    `Policy.parse_attempts`). Without it the answer is the output.
    `schedule`: when a daemon (`orchestrator serve`) that watches the file's folder queues a run of it by itself.
    `on_finish`, `on_failure`: who is told when a run is finished, and when one fails or stops early though nobody
    wanted it to: a command (a list of arguments, run without a shell), a `Webhook`, or a list of such; docs/report.md.
    `after`, `after_end`: a job's name, or several. A queued run of this job waits for the success, or for any end, of
    the run that is that job's latest when this one is queued, as with `submit --after JOB`; docs/queue.md.
    """

    name: str
    source: Source
    endpoint: Endpoint | Sequence[Endpoint | Weighted]
    sink: Sink
    request: RequestMaker = "{text}"
    parse: Callable[[Any], object] | None = None  # whatever the endpoint answers, which has no type
    policy: Policy = field(default_factory=Policy)
    fallback: Endpoint | None = None
    schedule: Cron | None = None
    incremental: bool = False
    allow_empty: bool = False
    on_finish: Hook | Sequence[str | Hook | Sequence[str]] | None = None
    on_failure: Hook | Sequence[str | Hook | Sequence[str]] | None = None
    after: str | Sequence[str] = ()
    after_end: str | Sequence[str] = ()
    endpoints: tuple[Weighted, ...] = field(init=False, repr=False)
    finish_hooks: tuple[Hook, ...] = field(init=False, repr=False)
    failure_hooks: tuple[Hook, ...] = field(init=False, repr=False)
    waits_for: tuple[tuple[str, bool], ...] = field(init=False, repr=False)  # jobs; True: for any end

    def __post_init__(self) -> None:
        given = self.endpoint if isinstance(self.endpoint, Sequence) else [self.endpoint]
        weighted = [one if isinstance(one, Weighted) else Weighted(one) for one in given]
        object.__setattr__(self, "endpoints", tuple(weighted))
        object.__setattr__(self, "finish_hooks", _hooks("on_finish", self.on_finish))
        object.__setattr__(self, "failure_hooks", _hooks("on_failure", self.on_failure))
        waits_for = [(name, False) for name in _names("after", self.after)]
        waits_for += [(name, True) for name in _names("after_end", self.after_end)]
        object.__setattr__(self, "waits_for", tuple(waits_for))
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"a job's name is letters, digits, '-', '_' and '.', beginning with a letter: {self.name!r}"
            )
        for name, door in (("source", Source), ("sink", Sink)):
            if not isinstance(getattr(self, name), door):
                raise TypeError(f"{name}={getattr(self, name)!r} is not a {name}; see `orchestrator.{name}s`")
        self._check_endpoints()
        if self.name in {name for name, _ in self.waits_for}:
            raise ValueError(f"job {self.name!r} cannot wait for itself; its runs are executed one after the other")
        if self.incremental and "run" not in placeholders_in(str(self.sink.path)):
            name = f"{self.sink.path.stem}-{{run}}{self.sink.path.suffix}"
            raise ValueError(
                f"each run of an incremental job writes its own file: put {{run}} into the sink's path, as in {name}"
            )
        if self.parse is not None and not callable(self.parse):
            raise TypeError("parse must be a function answer -> output")
        if self.schedule is not None and not isinstance(self.schedule, Cron):
            raise TypeError(f"schedule={self.schedule!r} is not a schedule; write schedule=Cron('0 2 * * *')")
        Renderer(self.request)  # a template that cannot work is found out here

    def _check_endpoints(self) -> None:
        if not self.endpoints:
            raise ValueError("a job needs an endpoint")
        if self.fallback is not None and not isinstance(self.fallback, Endpoint):
            raise TypeError(f"fallback={self.fallback!r} is not an endpoint; see `orchestrator.endpoints`")
        names = [one.endpoint.name for one in self.endpoints] + ([self.fallback.name] if self.fallback else [])
        if len(set(names)) < len(names):
            raise ValueError(f"a job's endpoints need different names, not {', '.join(names)}")
        if self.policy.fallback_below and self.fallback is None:
            raise ValueError("policy.fallback_below needs a fallback= endpoint in the job")

    @property
    def endpoint_names(self) -> frozenset[str]:
        """Of all that may be used, the fallback included."""
        names = {one.endpoint.name for one in self.endpoints}
        return frozenset(names | ({self.fallback.name} if self.fallback is not None else set()))

    def identity(self) -> Mapping[str, object]:
        """Everything about the endpoint that shapes an answer. May read files."""
        return self.endpoints[0].endpoint.identity(self.policy)

    def fingerprint(self, identity: Mapping[str, object], limit: int | None) -> str:
        """Covers everything that shapes what a run does and delivers; hex SHA-256."""
        request = fingerprint_of(self.request) if callable(self.request) else self.request
        parts = [self.name, identity, request, fingerprint_of(self.parse), self.sink.keep, limit]
        parts += ["incremental"] if self.incremental else []
        if not callable(self.request) and (ordered := json.dumps(request, default=str)) != json.dumps(
            request, sort_keys=True, default=str
        ):
            parts += [ordered]  # keys are sent in the template's order, and a run keeps its requests as it read them
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _hooks(name: str, given: Hook | Sequence[str | Hook | Sequence[str]] | None) -> tuple[Hook, ...]:
    """A list of strings is one command; in any other list, each entry is somebody."""
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
    raise TypeError(f"{argument}={given!r} is neither a job's name nor a list of such")


def fingerprint_of(function: Callable[..., object] | None) -> str:
    """Changes when a function's text changes, or that of the user's own code which it refers to; "" for None."""
    if function is None:
        return ""
    return hashlib.sha256("".join([_text_of(function), *own_code(function)]).encode()).hexdigest()


def _text_of(function: Callable[..., object]) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):  # defined in a prompt, built in, or a callable object
        code = getattr(function, "__code__", None)
        return f"{code.co_code!r}{code.co_consts!r}{code.co_names!r}" if code else repr(type(function))
