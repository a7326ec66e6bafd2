"""Every status and exception of a server or the network, and the failure that it becomes."""

from __future__ import annotations

import errno
import os
import socket

import aiohttp
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.errors import EndpointLost, EndpointRefused, FailureKind, NoRoom, OutOfCredit, RequestFailed
from orchestrator.wires.aiohttp_failures import from_exception
from orchestrator.wires.failures import from_answer, from_platform_answer, retry_after, words

REFUSED = [301, 307, 401, 403, 404, 405, 414, 415, 431, 501]
KINDS = {
    204: FailureKind.UNAVAILABLE,  # the toolkit assumed that the caller had left
    206: FailureKind.BAD_ANSWER,
    400: FailureKind.REJECTED,
    408: FailureKind.UNAVAILABLE,
    409: FailureKind.UNAVAILABLE,
    413: FailureKind.REJECTED,
    422: FailureKind.REJECTED,
    424: FailureKind.DUBIOUS,
    425: FailureKind.UNAVAILABLE,
    429: FailureKind.RATE_LIMITED,
    500: FailureKind.UNAVAILABLE,
    502: FailureKind.UNAVAILABLE,
    503: FailureKind.RATE_LIMITED,
    504: FailureKind.UNAVAILABLE,
    529: FailureKind.RATE_LIMITED,
}


@pytest.mark.parametrize(("status", "kind"), KINDS.items())
def test_each_status_maps_to_a_kind_of_failure(status: int, kind: FailureKind) -> None:
    failure = from_answer("http://host/", status, {}, b'{"error": "because"}')
    assert isinstance(failure, RequestFailed)
    assert (failure.kind, failure.status, failure.message) == (kind, status, "because")


PLATFORM = '{{"error": "{}", "code": "{}"}}'
TGI = '{{"error": "{}", "error_type": "{}"}}'
# condition -> what is observed -> its kind; the decision table from the sources of endpoint and engines
TABLE: dict[str, tuple[int, str, type[Exception] | FailureKind]] = {
    "scaled to zero or starting": (
        503,
        PLATFORM.format("503 Service Unavailable", "SERVICE_UNAVAILABLE"),
        EndpointLost,
    ),
    "paused": (400, PLATFORM.format("Bad Request: The endpoint is paused, ask", "BAD_REQUEST"), EndpointLost),
    "paused, older words": (400, PLATFORM.format("Bad Request: Invalid state", "BAD_REQUEST"), EndpointLost),
    "failed": (400, PLATFORM.format("Bad Request: Your endpoint is in error", "BAD_REQUEST"), EndpointLost),
    "the toolkit's 400": (400, '{"error": "index out of range in self"}', FailureKind.DUBIOUS),
    "the toolkit out of memory": (400, '{"error": "CUDA out of memory. Tried to"}', FailureKind.DUBIOUS),
    "no token": (401, PLATFORM.format("401 Unauthorized", "UNAUTHORIZED"), EndpointRefused),
    "no permission": (403, '{"error": "missing permissions: inference.endpoints.infer.write"}', EndpointRefused),
    "no credit": (402, '{"error": "You have exceeded your monthly included credits"}', OutOfCredit),
    "unknown model": (404, '{"error": {"message": "The model `X` does not exist.", "code": 404}}', EndpointRefused),
    "deleted": (404, PLATFORM.format("not found", "NOT_FOUND"), EndpointLost),
    "too long a list, TEI 1.8": (
        413,
        '{"message": "batch size 33 > maximum allowed batch size 32"}',
        FailureKind.REJECTED,
    ),
    "too long a list, TEI 1.9": (
        422,
        TGI.format("batch size 33 > maximum allowed batch size 32", "Validation"),
        FailureKind.REJECTED,
    ),
    "LiteLLM without a server": (
        429,
        '{"error": {"message": "All deployments for selected model are in cooldown. Passed model=m"}}',
        FailureKind.UNAVAILABLE,
    ),
    "an engine that died": (503, "CB worker is dead and cannot accept request 1: ...", FailureKind.UNAVAILABLE),
    "too large a body": (413, "Failed to buffer the request body: length limit exceeded", FailureKind.REJECTED),
    "wrong content type": (400, '{"error": "Content type \\"a/b\\" not supported. Supported"}', EndpointRefused),
    "TGI validation": (
        422,
        TGI.format("Input validation error: `inputs` must have", "validation"),
        FailureKind.REJECTED,
    ),
    "TGI generation": (424, TGI.format("Request failed during generation", "generation"), FailureKind.DUBIOUS),
    "TEI, another kind of model": (424, TGI.format("model is not a re-ranker model", "Backend"), EndpointRefused),
    "TGI overloaded": (429, TGI.format("Model is overloaded", "overloaded"), FailureKind.RATE_LIMITED),
    "quota": (429, '{"error": {"message": "quota", "code": "insufficient_quota"}}', OutOfCredit),
    "engine error": (500, '{"error": {"message": "EngineCore died"}}', FailureKind.UNAVAILABLE),
    "proxy": (502, "<html>Bad Gateway</html>", EndpointLost),
    "proxy time-out": (504, "<html>Gateway Time-out</html>", FailureKind.UNAVAILABLE),
    "loading": (503, '{"error": "Model m is currently loading", "estimated_time": 20.0}', EndpointLost),
    "llama.cpp loading": (
        503,
        '{"error":{"message":"Loading model","type":"unavailable_error","code":503}}',
        EndpointLost,
    ),
    "llama.cpp, too long to embed": (
        500,
        '{"error":{"code":500,"message":"input (9001 tokens) is too large to process. increase the batch size"}}',
        FailureKind.DUBIOUS,
    ),
    "llama.cpp without a pooling type": (
        400,
        '{"error":{"code":400,"message":"Pooling type \'none\' is not OAI compatible. Please use a different one"}}',
        EndpointRefused,
    ),
    "vLLM, an image for a model of texts": (
        400,
        '{"error":{"message":"my-model is not a multimodal model","type":"BadRequestError","code":400}}',
        FailureKind.DUBIOUS,
    ),
    "Infinity with another kind of model": (
        400,
        '{"error":{"message":"ModelNotDeployedError: model=`m` does not support `rerank`.","type":null,"code":400}}',
        EndpointRefused,
    ),
    "LiteLLM, unknown model": (
        400,
        '{"error":{"message":"/chat/completions: Invalid model name passed in model=m. Call","code":"400"}}',
        EndpointRefused,
    ),
    "transformers serve, another model": (
        400,
        "{\"detail\":\"Server is pinned to 'a'; requested 'b'.\"}",
        EndpointRefused,
    ),
    "newer toolkit overloaded": (503, '{"error": "overload detected"}', FailureKind.RATE_LIMITED),
}


@pytest.mark.parametrize("condition", TABLE)
def test_every_condition_has_its_reaction(condition: str) -> None:
    status, body, reaction = TABLE[condition]
    failure = from_platform_answer("http://host/", status, {}, body.encode())
    assert (failure.kind if isinstance(failure, RequestFailed) else type(failure)) == reaction


TOO_LONG = (
    '{{"detail":[{{"type":"too_long","loc":["body",{}],"msg":"List should have at most 32 items after validation"}}]}}'
)


@pytest.mark.parametrize(
    ("said", "most"),
    [
        ('{"error": "batch size 33 > maximum allowed batch size 32"}', 32),
        (TOO_LONG.format('"text","input","list[constrained-str]"'), 32),  # Infinity
        (TOO_LONG.format('"stop"'), None),
    ],
)
def test_the_longest_accepted_list_is_read_from_the_refusal(said: str, most: int | None) -> None:
    failure = from_answer("u", 422, {}, said.encode())
    assert isinstance(failure, RequestFailed)
    assert failure.most == most


@pytest.mark.parametrize("status", REFUSED)
def test_a_status_that_every_request_would_get_refuses_the_endpoint(status: int) -> None:
    failure = from_answer("http://host/", status, {"Location": "http://elsewhere/"}, b"")
    assert isinstance(failure, EndpointRefused)
    assert "http://host/" in str(failure)
    assert "\n" not in str(failure)


def test_an_account_without_credit_stops_the_run() -> None:
    assert isinstance(from_answer("u", 402, {}, b'{"error": "credits depleted"}'), OutOfCredit)


def test_a_loading_model_is_waited_for() -> None:
    failure = from_answer("u", 503, {}, b'{"error": "Model x is currently loading", "estimated_time": 20.0}')
    assert isinstance(failure, EndpointLost)
    assert (failure.starting, failure.retry_after) == (True, 20.0)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("soon", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("", None),
        ("inf", None),
        ("nan", None),
        ("99999999999999999", 86_400.0),
        ("9" * 5000, None),
        ("Sun Nov  6 08:49:37 1994", 0.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0.0),
        ("Sun, 06 Nov 1994 08:49:37 -0000", 0.0),
        ("Sun, 06 Nov 1994 08:49:37 +9999", None),
        ("Sun, 06 Nov 1994 08:49:37 +99999999999999999", None),
        ("Sun, 06 Nov 99999999999999999 08:49:37 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", None),
    ],
)
def test_retry_after_is_read_as_a_number_or_a_date(header: str, seconds: float | None) -> None:
    failure = from_answer("u", 429, {"Retry-After": header}, b"")
    assert isinstance(failure, RequestFailed)
    assert failure.retry_after == seconds


@pytest.mark.parametrize(
    "then", ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
)
def test_a_retry_date_is_relative_to_the_clock_of_the_server(then: str) -> None:
    assert retry_after({"Retry-After": then, "Date": "Sun, 06 Nov 1994 08:49:07 GMT"}) == 30.0


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Request too large for m on tokens per min (TPM): Limit 30000, Requested 34512.", FailureKind.DUBIOUS),
        ("Rate limit reached for m on tokens per min: Limit 10,000, Used 0, Requested 12,000.", FailureKind.DUBIOUS),
        (
            "Rate limit reached for m on tokens per min: Limit 10000, Used 9500, Requested 1200.",
            FailureKind.RATE_LIMITED,
        ),
        ("This request would exceed the limit of 40,000 input tokens per minute", FailureKind.RATE_LIMITED),
    ],
)
def test_a_429_that_an_idle_server_would_repeat_belongs_to_the_request(said: str, kind: FailureKind) -> None:
    failure = from_answer("u", 429, {}, orjson.dumps({"error": {"message": said, "code": "rate_limit_exceeded"}}))
    assert isinstance(failure, RequestFailed)
    assert failure.kind is kind


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "784111777"}, 86_400.0),
        ({"Retry-After": "1764540030"}, 30.0),
        ({"RateLimit-Remaining": "0", "RateLimit-Reset": "1764540030"}, 31.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1764539000"}, 0.0),
    ],
)
def test_a_wait_beyond_thirty_years_is_a_moment_in_seconds_since_1970(headers: dict[str, str], seconds: float) -> None:
    assert retry_after({**headers, "Date": "Sun, 30 Nov 2025 22:00:00 GMT"}) == seconds


def test_a_rate_limit_says_when_its_window_ends() -> None:
    assert retry_after({"RateLimit": '"api";r=0;t=55'}) == 56.0
    assert retry_after({"RateLimit": '"api";r=7;t=55'}) is None
    assert retry_after({"retry-after-ms": "1500", "Retry-After": "9"}) == 1.5


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"message": "too long", "code": 400}}', "too long"),
        (b'{"error": "no", "error_type": "validation"}', "no"),
        (b'{"message": "batch size 33 > 32"}', "batch size 33 > 32"),
        (b'{"detail": [{"loc": ["body"]}]}', '[{"loc":["body"]}]'),
        (b'"text"', "text"),
        (b"<html>\n  Bad Gateway</html>", "<html> Bad Gateway</html>"),
        (b"", "no words"),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_the_message_of_a_server_is_one_line(body: bytes, said: str) -> None:
    assert words(body) == said


@given(status=st.integers(201, 599), body=st.binary(max_size=300), retry=st.text(max_size=20))
def test_no_answer_of_a_server_crashes_the_translation(status: int, body: bytes, retry: str) -> None:
    failure = from_answer("u", status, {"Retry-After": retry}, body)
    assert "\n" not in str(failure)
    assert len(str(failure)) < 700


def test_client_exceptions_become_failures() -> None:
    assert isinstance(from_exception("x", aiohttp.InvalidURL("x")), EndpointRefused)
    assert isinstance(from_exception("u", aiohttp.ConnectionTimeoutError()), EndpointLost)
    for error, kind in [
        (TimeoutError(), FailureKind.TIMEOUT),
        (aiohttp.SocketTimeoutError(), FailureKind.TIMEOUT),
        (aiohttp.ServerDisconnectedError(), FailureKind.CONNECTION),
    ]:
        failure = from_exception("u", error)
        assert isinstance(failure, RequestFailed)
        assert failure.kind is kind


def test_the_message_of_an_exception_is_one_line_without_the_query_of_a_url() -> None:
    error = aiohttp.ClientOSError(32, "Can not write request body for https://host/path?key=secret\n(broken pipe)")
    said = str(from_exception("https://host/path", error))
    assert "https://host/path (broken pipe)" in said
    assert "secret" not in said


@pytest.mark.parametrize("lack", [errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS])
async def test_a_lack_of_local_resources_is_not_a_failure_of_the_endpoint(
    lack: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(lack, os.strerror(lack))

    monkeypatch.setattr(socket, "socket", refuse)
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError) as raised:
            await session.get("http://127.0.0.1:9/")
    with pytest.raises(NoRoom, match=os.strerror(lack)):
        from_exception("u", raised.value)


async def test_a_refused_connection_means_a_lost_endpoint() -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError) as raised:
            await session.get("http://127.0.0.1:9/")
    assert isinstance(from_exception("u", raised.value), EndpointLost)


@pytest.mark.parametrize(
    "value",
    ["Fri, 31 Dec 1999 23:59:59 +99999999999999", "Fri, 31 Dec 9999 23:59:59 -2400", "nan", "-inf", "9" * 400, "1e400"],
)
def test_an_absurd_retry_delay_is_limited_or_ignored(value: str) -> None:
    for name in ("Retry-After", "retry-after-ms"):
        wait = retry_after({name: value})
        assert wait is None or 0 <= wait <= 86_400


@pytest.mark.parametrize("depth", [253, 254, 255, 1000, 1023, 1024, 1025, 100_000])
def test_messages_nested_too_deep_are_shown_unchanged(depth: int) -> None:
    for body in (b'{"error":' + b"[" * depth + b"]" * depth + b"}", b'{"error":' * depth + b"1" + b"}" * depth):
        failure = from_answer("http://host/", 400, {}, body)
        assert isinstance(failure, RequestFailed)
        assert failure.message
        assert len(failure.message) <= 500


@pytest.mark.parametrize(("status", "forbidden"), [(401, True), (403, True), (404, False), (405, False)])
def test_a_refusal_says_whether_the_token_is_the_reason(status: int, forbidden: bool) -> None:
    refusal = from_answer("u", status, {}, b"{}")
    assert isinstance(refusal, EndpointRefused)
    assert refusal.forbidden is forbidden
