"""The conformance suite for every wire."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from aiohttp import web
from yarl import URL

from orchestrator.domain.answer import Answer
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.domain.policy import Policy
from orchestrator.endpoints.http import HttpEndpoint
from orchestrator.testing.assertions import with_event_loop
from orchestrator.wires.wire import AnswersElsewhere, Body

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from orchestrator.wires import Wire

BASES = ("http://h:1/", "http://h:1/behind/a/proxy", "http://h/a%2Fb/?key=1%202")
# bodies that servers send with a 200 although they are not an answer on any wire
NO_ANSWERS = (
    b"",
    b"<html>",
    b"null",
    b'{"error": "in band"}',
    b'{"error": {"message": "in band", "http_status_code": 422}}',
    b'[{"error": "in band", "error_type": "generation"}]',
    b'{"object": "list", "data": [{"index": 0, "embedding": [0.1, NaN]}]}',
    b"[[0.1, NaN]]",
    b"[Infinity]",
    b'{"choices": [{"index": 0, "message": {"content": "cut o',
)
_ODD: tuple[object, ...] = (None, [], {}, "", "text", -1, 2**70, True, [None], {"error": "no"}, [[[]]])
_CUTS = 200  # places at which a body is cut


class WireConformance:
    """Subclass it as `TestMyWire`; set `requests` and `answers`, and write `wire` and `respond`."""

    requests: Sequence[object]
    """Values for a job's `request`, in every shape that the wire takes."""
    answers: Sequence[object]
    """A correct server's answer to each request."""
    refused: Sequence[object] = ()
    """Requests that the wire cannot carry."""
    tokens: tuple[int | None, int | None] | None = None
    """The tokens in and out that the server reports for each request; None if it does not report them."""
    deadline = 120.0
    """Seconds for one test."""

    def wire(self) -> Wire:
        """Return the wire."""
        raise NotImplementedError

    def respond(self, body: Body) -> bytes:
        """Return a correct server's answer to this body."""
        raise NotImplementedError

    def accept(self) -> bytes:
        """Return what a server answers when it puts a request into its queue, if the wire has an `answer_url`."""
        raise NotImplementedError

    def shares_requests(self) -> bool:
        """Whether one request can carry several items."""
        return self.wire().takes_lists

    # -- right answers ------------------------------------------------------------------------------------------------

    @with_event_loop
    async def test_an_honest_server_gives_the_right_answers(self) -> None:
        for request, value in zip(self.requests, self.answers, strict=True):
            assert await self._asked([request]) == [value if self.tokens is None else Answer(value, *self.tokens)]

    @with_event_loop
    async def test_several_items_in_one_request_are_answered_in_order(self) -> None:
        if not self.shares_requests():
            return
        for request, value in zip(self.requests, self.answers, strict=True):
            assert _values(await self._asked([request] * 3)) == [value] * 3
        try:
            answers = await self._asked(self.requests)
        except RequestFailed as refusal:  # not all of these can share a request, which costs nothing
            assert refusal.sent is False  # noqa: PT017 - it may also succeed
        else:
            assert _values(answers) == list(self.answers)

    @with_event_loop
    async def test_over_http_the_answers_are_the_same(self) -> None:
        wire = self.wire()
        async with (
            self._served() as url,
            HttpEndpoint(str(url), wire=wire).control() as control,
            control.connect(Policy()) as data,
        ):
            answers = await data.ask([orjson.dumps(self.requests[0])])
        assert _values(answers) == [self.answers[0]]

    # -- URL, identity and requests -----------------------------------------------------------------------------------

    @pytest.mark.parametrize("base", BASES)
    def test_a_url_that_is_whole_stays_as_it_is(self, base: str) -> None:
        whole = self.wire().url(URL(base))
        assert self.wire().url(whole) == whole
        assert (whole.host, whole.port, whole.query_string) == (*_place(base), URL(base).query_string)

    def test_its_identity_is_json_that_names_the_wire(self) -> None:
        identity = self.wire().identity
        assert isinstance(identity["wire"], str)
        assert orjson.loads(orjson.dumps(identity)) == orjson.loads(orjson.dumps(self.wire().identity))

    @with_event_loop
    async def test_the_same_requests_are_always_the_same_body(self) -> None:
        wire = self.wire()
        for request in self.requests:
            assert await wire.pack([orjson.dumps(request)]) == await self.wire().pack([orjson.dumps(request)])
            assert await wire.pack([orjson.dumps(request)]) == await wire.pack([orjson.dumps(request)])

    @with_event_loop
    async def test_a_request_that_it_cannot_carry_is_rejected(self) -> None:
        for request in self.refused:
            with pytest.raises(RequestFailed) as failure:
                await self.wire().pack([orjson.dumps(request)])
            assert failure.value.kind is FailureKind.REJECTED

    # -- wrong answers ------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("content", NO_ANSWERS)
    def test_what_is_no_answer_is_never_given_as_one(self, content: bytes) -> None:
        for entry in self._unpacked(content, 1):
            assert isinstance(entry, RequestFailed)
            assert entry.kind in {FailureKind.GARBLED, FailureKind.BAD_ANSWER}
            assert entry.status == 200

    @with_event_loop
    async def test_a_body_that_is_cut_is_no_answer(self) -> None:
        content = await self._honest(self.requests[:1])
        if content[:1] not in b'{["':  # part of a number is still a number
            return
        for length in range(0, len(content), max(1, len(content) // _CUTS)):
            (entry,) = self._unpacked(content[:length], 1)
            assert isinstance(entry, RequestFailed)

    @with_event_loop
    async def test_whatever_stands_in_a_body_there_is_one_entry_per_request(self) -> None:
        """Nothing but `RequestFailed` is raised: no bytes from outside may end a run."""
        content = await self._honest(self.requests[:1])
        honest = orjson.loads(content) if content[:1] in b'{["' else None  # the wire may not answer in JSON
        for odd in _variants(honest):
            assert len(self._unpacked(json.dumps(odd).encode(), 1)) == 1

    @with_event_loop
    async def test_answers_to_fewer_requests_than_were_sent_do_not_count_for_all(self) -> None:
        if not self.shares_requests():
            return
        content = await self._honest([self.requests[0]] * 2)
        assert any(isinstance(entry, RequestFailed) for entry in self._unpacked(content, 3))

    # -- helpers ------------------------------------------------------------------------------------------------------

    async def _honest(self, requests: Sequence[object]) -> bytes:
        return self.respond(await self.wire().pack([orjson.dumps(request) for request in requests]))

    async def _asked(self, requests: Sequence[object]) -> list[object]:
        try:
            body = await self.wire().pack([orjson.dumps(request) for request in requests])
        except RequestFailed as refusal:
            refusal.sent = False
            raise
        return self.wire().unpack(self.respond(body), len(requests))

    def _unpacked(self, content: bytes, count: int) -> list[object]:
        try:
            return self.wire().unpack(content, count)
        except RequestFailed as failure:
            return [failure] * count

    @asynccontextmanager
    async def _served(self) -> AsyncIterator[URL]:
        """Run a server on this machine that answers only at the wire's URL."""
        wire = self.wire()
        url = wire.url(URL("http://h/"))
        queue: dict[str, bytes] = {}

        async def answer(request: web.Request) -> web.Response:
            if request.path in queue:
                return web.Response(body=queue.pop(request.path))
            if request.path != url.path:
                return web.Response(status=404)
            body = Body(await request.read(), request.headers["Content-Type"], request.method)
            content = self.respond(body)
            if isinstance(wire, AnswersElsewhere):
                queue[wire.answer_url(url, self.accept()).path] = content
                content = self.accept()
            return web.Response(body=content, content_type="application/json")

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield URL.build(scheme="http", host="127.0.0.1", port=runner.addresses[0][1])
        finally:
            await runner.cleanup()


def _values(answers: Sequence[object]) -> list[object]:
    return [answer.value if isinstance(answer, Answer) else answer for answer in answers]


def _place(url: str) -> tuple[str | None, int | None]:
    return URL(url).host, URL(url).port


def _variants(value: Any) -> Iterator[Any]:
    """Yield the value with one part at a time replaced by something odd."""
    yield from _ODD
    parts = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    for key, part in parts:
        for odd in _variants(part):
            changed = value.copy()
            changed[key] = odd
            yield changed
