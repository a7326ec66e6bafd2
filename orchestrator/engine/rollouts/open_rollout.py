"""One open rollout: what it has asked so far, and what the ledger has of that already."""

from __future__ import annotations

import functools
import hashlib
import itertools
import time
from typing import TYPE_CHECKING, Any

from orchestrator import exact_json
from orchestrator.domain.asks import OpenAsk, RecordedAsk
from orchestrator.domain.attempt import Completed
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.domain.item import File
from orchestrator.domain.request import drawn_by_chance
from orchestrator.engine.asking.request_json import SORTED, as_stored, request_json

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from orchestrator.domain.item import Item
    from orchestrator.job import Job
    from orchestrator.store.asks import Known, LateAsk

_REFUSED = 1000  # asks of a rollout that is over, for each of which its function is cancelled once more
_CALL = b"call\0"  # begins what identifies a call of the user's own function


class OpenRollout:
    """A rollout from the call of its function until that has returned, or was `left` behind.

    `asks`: those that are not settled, by key. `over`: its function was cancelled, and whatever that makes of it does
    not count. `spoiled`: why the item is then discarded; if None, it is not settled. `task`: what the function runs in.
    """

    task: asyncio.Task[None]

    def __init__(self, item: Item, known: Known, max_asks: int) -> None:
        self.item = item
        self.begun = time.monotonic()
        self._max_asks = max_asks
        self.asks: dict[int, OpenAsk] = {}
        self.number = 0  # of the latest ask, counted from 1
        self.ended = False
        self.over = False
        self.left = False
        self.spoiled: RequestFailed | None = None
        self.sent = False  # whether one of its requests has been sent
        self.tokens_in: int | None = None
        self.tokens_out: int | None = None
        self.notes: frozenset[str] = frozenset()
        self._known = known
        self._times: dict[bytes, int] = {}
        self._refused = 0

    def next_ask(self, hashed: bytes) -> tuple[int, RecordedAsk | None]:
        """Count an ask; return how many equal ones came before it, and what the ledger has of it."""
        nth = self._times.get(hashed, 0)
        self._times[hashed] = nth + 1
        self.number += 1
        return nth, self._known.get((hashed, nth)) if self._known else None

    def may_ask(self) -> bool:
        """Return whether it may ask once more. Otherwise its function is cancelled, since it may catch any failure."""
        if self.ended and not self.left:
            raise RuntimeError("the rollout has returned, so it cannot ask any more")
        if not self.over and self.number >= self._max_asks:
            why = f"it asks more than policy.max_asks={self._max_asks} times"
            self.end_early(RequestFailed(FailureKind.ROLLOUT, why))
        elif self.over and self._refused < _REFUSED:  # it has caught that, and may do so again and again
            self._refused += 1
            self.cancel()
        return not self.over

    def cancel(self) -> None:
        """Cancel its function."""
        self.over = True
        self.task.cancel()

    def end_early(self, why: RequestFailed) -> None:
        """Discard the item for this reason, and cancel its function."""
        self.spoiled = why
        self.cancel()

    def count(self, answer: Completed | RecordedAsk) -> None:
        """Count the tokens and notes of an answer."""
        if answer.tokens_in is not None:
            self.tokens_in = (self.tokens_in or 0) + answer.tokens_in
        if answer.tokens_out is not None:
            self.tokens_out = (self.tokens_out or 0) + answer.tokens_out
        if answer.notes:
            self.notes |= answer.notes

    def output(self, value: str) -> Completed:
        """Return the outcome of the item; `value`: what the function returned, as JSON."""
        return Completed(value, None, self.tokens_in, self.tokens_out, self.notes)


class AskMaker:
    """Makes the asks of a job's rollouts: who is asked, and what identifies the ask."""

    def __init__(self, job: Job, identity: Mapping[str, Any]) -> None:
        identities = {route.name: identity["routes"][route.name] for route in job.routes}
        self._first = job.routes[0].name
        self._shapes = {
            name: hashlib.blake2b(exact_json.dumps(one, as_stored, SORTED), digest_size=16)
            for name, one in identities.items()
        }
        self._shares = {name: job.policy.dedupe and not drawn_by_chance(one) for name, one in identities.items()}
        self._keys = itertools.count(1)

    def ask(self, rollout: OpenRollout, request: object, to: str | None, step: str | None) -> OpenAsk | RecordedAsk:
        """Return the settled ask for a request, as the ledger has it; if it has none, the ask to be made.

        Raises `ValueError` for an endpoint that the job does not name, `TypeError` for a request without a JSON form.
        """
        name = self._first if to is None else to
        if name not in self._shapes:
            raise ValueError(f"ask(to={to!r}): the job names no such endpoint; it has {', '.join(self._shapes)}")
        stored, sent, hashed = request_json(request)
        shape = self._shapes[name].copy()
        shape.update(hashed)
        digest = shape.digest()
        ask = self._made(rollout, digest, stored)
        if isinstance(ask, RecordedAsk):
            return ask
        ask.endpoint, ask.step, ask.shares = name, step, self._shared(name, request, sent, hashed, digest)
        return ask

    def recalled(self, late: LateAsk) -> bytes | None:
        """Return the hash under which an earlier ask shares its answer; None if it does not, or cannot be told."""
        name = late.endpoint
        if name is None or not self._shares.get(name) or b'"$file"' in late.request:
            return None
        request = exact_json.loads(late.request)
        _, sent, hashed = request_json(request)
        shape = self._shapes[name].copy()
        shape.update(hashed)
        return self._shared(name, request, sent, hashed, late.hash) if shape.digest() == late.hash else None

    def _shared(self, name: str, request: object, sent: bytes, hashed: bytes, digest: bytes) -> bytes | None:
        if not self._shares[name] or drawn_by_chance(request):
            return None
        return digest if sent is hashed or sent == hashed else _hash_of(name, sent)

    def call(
        self,
        rollout: OpenRollout,
        function: Callable[..., object],
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
    ) -> OpenAsk | RecordedAsk:
        """Return a settled call of the user's function, as the ledger has it; if it has none, the call as an ask.

        Raises `TypeError` for arguments without a JSON form, and for a function without a name.
        """
        bound = functools.partial(function, *args, **kwargs)  # has the arguments of a partial, too
        name = getattr(bound.func, "__qualname__", type(bound.func).__qualname__)
        if name.endswith("<lambda>"):
            raise TypeError(
                "ask.call() finds a recorded result by the function's name, and a lambda has none: use `def`"
            )
        stored, _, hashed = request_json({"function": name, "args": [*bound.args], "kwargs": bound.keywords})
        call = self._made(rollout, hashlib.blake2b(_CALL + hashed, digest_size=16).digest(), stored)
        if isinstance(call, OpenAsk):
            call.step = name
        return call

    def _made(self, rollout: OpenRollout, hashed: bytes, stored: bytes) -> OpenAsk | RecordedAsk:
        nth, known = rollout.next_ask(hashed)
        if known is not None and known.outcome is not None:
            return known
        item = rollout.item
        ask = OpenAsk(next(self._keys), f"{item.id} (ask {rollout.number})", stored, 1, item.lease)
        ask.rollout, ask.hash, ask.nth, ask.number = item.id, hashed, nth, rollout.number
        if known is not None:
            ask.attempt, ask.failed = known.attempts + 1, list(known.failures)
            ask.failures = [failed.kind for failed in known.failures]
        return ask


def _hash_of(name: str, sent: bytes) -> bytes:
    """Return a hash of a request as it is sent: with other keys first, it may be answered otherwise."""
    return hashlib.blake2b(name.encode() + b"\0" + sent, digest_size=16).digest()


def row_of(request: bytes) -> Any:
    """Return the row of an item as its rollout gets it: values as JSON has them, and files as `File`."""
    row = exact_json.loads(request)
    for name, value in row.items():
        if isinstance(value, dict) and set(value) == {"$file", "sha256", "content_type"}:
            row[name] = File(value["$file"], value["sha256"], value["content_type"])
    return row
