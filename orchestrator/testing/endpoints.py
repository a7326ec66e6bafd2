"""The conformance suite for every endpoint: its control plane, then its data plane."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import orjson
import pytest

from orchestrator import ports
from orchestrator.domain.answer import Answer
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import (
    EndpointLost,
    EndpointSilent,
    FailureKind,
    OrchestratorError,
    RequestFailed,
    UsageError,
)
from orchestrator.domain.policy import Policy
from orchestrator.testing.assertions import with_event_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from orchestrator.ports import ControlPlane, DataPlane, Endpoint

_IN_FLIGHT = 8  # requests at once
_LOOK = 0.02  # seconds between two looks; short, because the endpoint's server is on this machine


async def until_awake(control: ControlPlane) -> list[EndpointState]:
    """Wait until an endpoint that was resumed answers. Return every state that it was seen in."""
    seen = [await control.state()]
    while not (seen[-1] is EndpointState.AWAKE and await control.answers()):
        assert seen[-1] not in {EndpointState.FAILED, EndpointState.GONE}, control.status_text
        await anyio.sleep(_LOOK)
        seen.append(await control.state())
    return seen


async def until_asleep(control: ControlPlane) -> EndpointState:
    """Wait until an endpoint that was paused is asleep. Return its state."""
    while not (state := await control.state()).asleep:
        await anyio.sleep(_LOOK)
    return state


class EndpointConformance:
    """Subclass it as `TestMyEndpoint`; set `requests` and `answers`, and write `serving`.

    The other methods and `refused` are optional: if one is missing, its tests are skipped.
    """

    requests: Sequence[object]
    """Values for a job's `request`: at least two, with different answers."""
    answers: Sequence[object]
    """The server's answer to each request, without tokens."""
    refused: object = None
    """A request that fails because of its content."""
    sleeps = True
    """Whether it is asleep after a pause; False if someone else runs the server."""
    policy = Policy()
    deadline = 120.0
    """Seconds for one test."""

    def serving(self) -> AbstractAsyncContextManager[Endpoint]:
        """Yield the endpoint, asleep if it can be. Its server is gone when the block ends."""
        raise NotImplementedError

    def silent(self) -> AbstractAsyncContextManager[Endpoint]:
        """Yield an endpoint with short deadlines whose provider accepts every call and never answers."""
        pytest.skip("`silent` is not implemented")

    async def lose(self, endpoint: Endpoint) -> None:
        """Kill the server of an endpoint that is awake."""
        del endpoint
        pytest.skip("`lose` is not implemented")

    # -- name and identity --------------------------------------------------------------------------------------------

    @with_event_loop
    async def test_it_is_an_endpoint_with_a_name_and_time_to_start(self) -> None:
        async with self.serving() as endpoint:
            assert isinstance(endpoint, ports.Endpoint)
            assert endpoint.name
            assert "\n" not in endpoint.name
            assert endpoint.startup_timeout > 0

    @with_event_loop
    async def test_its_identity_is_json_and_stays_the_same(self) -> None:
        async with self.serving() as endpoint:
            identity = await anyio.to_thread.run_sync(endpoint.identity, self.policy)
            assert identity
            again = await anyio.to_thread.run_sync(endpoint.identity, self.policy)
            assert orjson.dumps(again, option=orjson.OPT_SORT_KEYS) == orjson.dumps(
                identity, option=orjson.OPT_SORT_KEYS
            )

    # -- control plane ------------------------------------------------------------------------------------------------

    @with_event_loop
    async def test_a_control_plane_can_be_opened_and_closed_without_a_call(self) -> None:
        async with self.serving() as endpoint, endpoint.control() as control:
            assert control.look_every > 0
            assert isinstance(control.installing, bool)

    @with_event_loop
    async def test_each_of_its_members_has_a_name_and_is_woken_asked_and_paused_by_itself(self) -> None:
        async with self.serving() as endpoint, endpoint.control() as control:
            if not isinstance(control, ports.HasMembers):
                pytest.skip("it is a single server")
            async with aclosing(control.members()) as changes:
                present = await anext(changes)
            assert len({endpoint.name, *(member.name for member in present)}) == len(present) + 1
            for member in present:
                assert member.terms is None  # the endpoint has the terms
                await member.resume()
                await until_awake(member)
                async with member.connect(self.policy) as data:
                    answers = await data.ask([orjson.dumps(self.requests[0])])
                    assert [_value(answer) for answer in answers] == [self.answers[0]]
                await member.pause()
                assert (await until_asleep(member)).asleep

    @with_event_loop
    async def test_it_is_resumed_until_it_answers_and_paused_until_it_sleeps(self) -> None:
        async with self.serving() as endpoint, endpoint.control() as control:
            if self.sleeps:
                assert (await control.state()).asleep
                assert not await control.answers()
            await control.resume()
            seen = await until_awake(control)
            assert set(seen) <= {
                EndpointState.PAUSED,  # the provider may report the change late
                EndpointState.SCALED_TO_ZERO,
                EndpointState.STARTING,
                EndpointState.AWAKE,
            }
            assert "\n" not in control.status_text
            price = await control.price()
            assert price is None or price > 0
            await control.pause()
            if self.sleeps:
                await until_asleep(control)

    @with_event_loop
    async def test_a_pause_before_any_resume_is_safe(self) -> None:
        async with self.serving() as endpoint, endpoint.control() as control:
            await control.pause()
            await control.pause()
            if self.sleeps:
                await until_asleep(control)
            await control.resume()
            await until_awake(control)

    @with_event_loop
    async def test_a_pause_is_safe_to_repeat_and_it_can_be_woken_again(self) -> None:
        async with self.serving() as endpoint, endpoint.control() as control:
            for _ in range(2):
                await control.resume()
                await until_awake(control)
                await control.pause()
                await control.pause()
                if self.sleeps:
                    await until_asleep(control)
                    await control.pause()
                    assert (await control.state()).asleep

    @with_event_loop
    async def test_a_resume_is_safe_to_repeat(self) -> None:
        async with self.serving() as endpoint, endpoint.control() as control:
            await control.resume()
            await control.resume()
            await until_awake(control)
            await control.resume()
            await until_awake(control)
            async with control.connect(self.policy) as data:
                await self._assert_answers(data)

    @with_event_loop
    async def test_it_can_be_paused_while_it_starts(self) -> None:
        async with self.serving() as endpoint, endpoint.control() as control:
            await control.resume()
            await control.pause()
            if self.sleeps:
                await until_asleep(control)

    @with_event_loop
    async def test_no_call_waits_for_ever_for_a_provider_that_is_silent(self) -> None:
        async with self.silent() as endpoint, endpoint.control() as control:
            with pytest.raises(EndpointSilent):
                await control.state()
            for call in (control.resume, control.pause):
                with pytest.raises(OrchestratorError):
                    await call()
            assert not await control.answers()

    # -- data plane ---------------------------------------------------------------------------------------------------

    @with_event_loop
    async def test_there_is_one_answer_for_each_request(self) -> None:
        async with self._awake() as (_, data):
            await self._assert_answers(data)

    @with_event_loop
    async def test_many_requests_at_once_get_their_own_answers(self) -> None:
        async with self._awake() as (_, data), anyio.create_task_group() as group:
            for _ in range(_IN_FLIGHT):
                group.start_soon(self._assert_answers, data)

    @with_event_loop
    async def test_a_request_with_several_items_has_one_entry_for_each(self) -> None:
        batches = Policy(batch_size=len(self.requests))
        async with self.serving() as endpoint:
            try:
                await anyio.to_thread.run_sync(endpoint.identity, batches)
            except UsageError as refusal:
                pytest.skip(f"it takes no batches: {refusal}")
        async with self._awake(batches) as (_, data):
            most = min(data.limits.items, len(self.requests))
            entries = await data.ask([orjson.dumps(request) for request in self.requests[:most]])
            assert [_value(entry) for entry in entries] == list(self.answers[:most])

    @with_event_loop
    async def test_a_request_that_is_refused_fails_alone(self) -> None:
        if self.refused is None:
            pytest.skip("`refused` is not set")
        async with self._awake() as (_, data):
            try:
                (entry,) = await data.ask([orjson.dumps(self.refused)])
            except RequestFailed as failure:
                entry = failure
            assert isinstance(entry, RequestFailed)
            assert entry.kind in {FailureKind.REJECTED, FailureKind.DUBIOUS}
            await self._assert_answers(data)

    @with_event_loop
    async def test_a_request_that_is_cancelled_leaves_the_others_alone(self) -> None:
        async with self._awake() as (_, data):
            for _ in range(_IN_FLIGHT):
                async with anyio.create_task_group() as group:
                    group.start_soon(data.ask, [orjson.dumps(self.requests[0])])
                    await anyio.lowlevel.checkpoint()
                    group.cancel_scope.cancel()
            await self._assert_answers(data)

    @with_event_loop
    async def test_a_server_that_is_gone_is_a_lost_endpoint_and_can_be_woken_again(self) -> None:
        async with self.serving() as endpoint, endpoint.control() as control:
            await control.resume()
            await until_awake(control)
            async with control.connect(self.policy) as data:
                await self.lose(endpoint)
                with pytest.raises(EndpointLost):
                    await _ask_until_lost(data, orjson.dumps(self.requests[0]))
            if self.sleeps:
                assert not await control.answers()
                await control.resume()
                await until_awake(control)
                async with control.connect(self.policy) as data:
                    await self._assert_answers(data)

    # -- helpers ------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _awake(self, policy: Policy | None = None) -> AsyncIterator[tuple[ControlPlane, DataPlane]]:
        async with self.serving() as endpoint, endpoint.control() as control:
            await control.resume()
            await until_awake(control)
            async with control.connect(policy or self.policy) as data:
                yield control, data

    async def _assert_answers(self, data: DataPlane) -> None:
        for request, answer in zip(self.requests, self.answers, strict=True):
            (entry,) = await data.ask([orjson.dumps(request)])
            assert _value(entry) == answer


def _value(entry: object) -> object:
    return entry.value if isinstance(entry, Answer) else entry


async def _ask_until_lost(data: DataPlane, request: bytes) -> None:
    """Send a request until the endpoint is lost. The first broken connection may count as a failure of the request."""
    for _ in range(3):
        try:
            await data.ask([request])
        except RequestFailed as failure:
            assert failure.kind in {FailureKind.CONNECTION, FailureKind.UNAVAILABLE}  # noqa: PT017 - one of several tries
