"""BalancedData: the data plane of servers that we run, each request to the one that has the fewest in its hands."""

from __future__ import annotations

import re
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import EndpointFailed, EndpointLost, FailureKind, RequestFailed
from orchestrator.endpoints.http import data_plane

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from orchestrator.domain.policy import Policy
    from orchestrator.endpoints.http import HttpData
    from orchestrator.endpoints.replica import Replica
    from orchestrator.ports import Again
    from orchestrator.wires.wire import Wire

_MEND = 1.0  # seconds between two looks at what does not answer
_AGAIN = 30.0  # seconds before one that ended while it was starting is started again
_BREATHS_ITS_LAST = 1.0  # seconds in which a process that broke a connection or answered 5xx is seen to end
_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(\{)?", re.MULTILINE)


@dataclass(eq=False, slots=True)
class _Seat:
    """A server that answers. `held`: requests that it has in its hands."""

    replica: Replica
    data: HttpData
    held: int = field(default=0)


class BalancedData:
    """Items to the servers, answers back.

    A server that dies is taken out, and started again while the others go on. That it died over a request is told as
    any other loss, `EndpointLost` with blame, though others still answer: the engine then finds the item that did it,
    and the endpoint, looked at, is awake at once. What the others were asked meanwhile is asked again.
    """

    max_in_flight: int | None = None

    def __init__(self, name: str, replicas: Sequence[Replica], opening: _Opening) -> None:
        self._name = name
        self._replicas = replicas
        self._opening = opening
        self._seats: list[_Seat] = []
        self._mended_at = time.monotonic()
        self._mending = False

    async def seat(self) -> None:
        """Take in those that answer."""
        seated = {seat.replica for seat in self._seats}
        for replica in self._replicas:
            if replica not in seated and replica.runs and replica.state is EndpointState.AWAKE:
                self._seats.append(_Seat(replica, await self._opening.data(replica)))
        if not self._seats:
            raise EndpointLost(f"{self._name}: no server runs")
        self.limits = self._seats[0].data.limits

    @property
    def quiet_until(self) -> float:
        """The first moment at which one of them may be asked again."""
        return min((seat.data.quiet_until for seat in self._seats), default=0.0)

    async def metrics(self) -> str | None:
        """What they all say; of several, each one's numbers bear its number."""
        said = [await seat.data.metrics() for seat in self._seats]
        if len(said) == 1:
            return said[0]
        texts = [_labelled(text, number) for number, text in enumerate(said) if text is not None]
        return "\n".join(texts) if texts else None

    async def ask(self, requests: Sequence[bytes], again: Again | None = None) -> Sequence[object]:
        """Ask the one with the fewest requests in its hands."""
        await self._mend()
        self._seats = [seat for seat in self._seats if seat.replica.runs]
        if not self._seats:
            raise EndpointLost(f"{self._name}: the server {await self._replicas[0].how_it_ended()}")
        seat = min(self._seats, key=lambda seat: seat.held)
        held_others = seat.held > 0
        seat.held += 1
        try:
            return await seat.data.ask(requests, again)
        except EndpointLost as loss:  # not even a connection, or the server itself says that it is not ready
            if await seat.replica.ends_within(_BREATHS_ITS_LAST):
                raise await self._died(seat, blames_items=held_others) from loss
            raise
        except RequestFailed as failure:
            if await _was_its_last(failure, seat.replica):
                raise await self._died(seat, blames_items=True) from failure
            raise
        finally:
            seat.held -= 1

    async def _died(self, seat: _Seat, *, blames_items: bool) -> EndpointLost:
        how = await seat.replica.how_it_ended()
        over = " over a request" if blames_items else ""
        return EndpointLost(f"{self._name}: the server died{over}: it {how}", blames_items=blames_items)

    async def _mend(self) -> None:
        """Once in a while, look at those that do not answer; start again what has ended."""
        now = time.monotonic()
        if len(self._replicas) == 1 or self._mending or now < self._mended_at + _MEND:
            return
        self._mending = True
        try:
            for replica in self._replicas:
                if not any(seat.replica is replica for seat in self._seats) or not replica.runs:
                    await _mended(replica)
            self._seats = [seat for seat in self._seats if seat.replica.runs]
            await self.seat()
        finally:
            self._mending, self._mended_at = False, time.monotonic()


@dataclass(frozen=True, slots=True)
class _Opening:
    """How the data plane of one server is opened, and where that is undone."""

    stack: AsyncExitStack
    wire: Wire
    headers: Mapping[str, str]
    policy: Policy

    async def data(self, replica: Replica) -> HttpData:
        return await self.stack.enter_async_context(data_plane(replica.url, self.headers, self.wire, self.policy))


@asynccontextmanager
async def balanced(
    name: str, replicas: Sequence[Replica], wire: Wire, headers: Mapping[str, str], policy: Policy
) -> AsyncIterator[BalancedData]:
    """Open the data plane of those that answer; others are taken in as they come up. `EndpointLost` where none does."""
    async with AsyncExitStack() as stack:
        data = BalancedData(name, replicas, _Opening(stack, wire, headers, policy))
        await data.seat()
        yield data


async def _mended(replica: Replica) -> None:
    """Look at one that does not answer, and start it where it has ended. One that cannot start is tried seldom."""
    failed_before = replica.state is EndpointState.FAILED
    if failed_before and time.monotonic() < replica.looked_at + _AGAIN:
        return
    state = await replica.look()
    if state is EndpointState.PAUSED or (failed_before and state is EndpointState.FAILED):
        try:
            await replica.start()
        except EndpointFailed:  # its port is taken; the others go on
            replica.state = EndpointState.FAILED


async def _was_its_last(failure: RequestFailed, replica: Replica) -> bool:
    """Whether the server ends just now: it has broken the connection, or answered 5xx and is not well."""
    if failure.kind is FailureKind.UNAVAILABLE and (failure.status or 0) >= 500:  # noqa: PLR2004 - the server's fault
        return not (replica.runs and await replica.is_well()) and await replica.ends_within(_BREATHS_ITS_LAST)
    return failure.kind is FailureKind.CONNECTION and await replica.ends_within(_BREATHS_ITS_LAST)


def _labelled(text: str, number: int) -> str:
    """Prometheus text with one more label on every sample, so that several servers' can stand together."""
    return _SAMPLE.sub(lambda match: f'{match[1]}{{replica="{number}"' + ("," if match[2] else "}"), text)
