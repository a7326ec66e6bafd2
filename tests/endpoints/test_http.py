"""What the network does to a request: real sockets."""

from __future__ import annotations

import gc
import gzip
import os
import resource
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import time
import traceback
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSListener

from orchestrator import Policy
from orchestrator.domain.errors import EndpointLost, EndpointRefused, FailureKind, NoRoom, RequestFailed, UsageError
from orchestrator.endpoints import HttpEndpoint
from tests.commands import DEADLINE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from anyio.abc import ByteStream, SocketStream

pytestmark = pytest.mark.usefixtures("each_http_client")

WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"


@asynccontextmanager
async def server(serve: Callable[[SocketStream], Awaitable[None]]) -> AsyncIterator[int]:
    """A TCP server that does with each connection what it is told; gives its port."""

    async def handle(stream: SocketStream) -> None:
        async with stream:
            await serve(stream)

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, handle)
        yield listener.extra(SocketAttribute.local_port)
        group.cancel_scope.cancel()


async def asked(url: str, policy: Policy) -> object:
    endpoint = HttpEndpoint(url)
    async with endpoint.control() as control, control.connect(policy) as data:
        return await data.ask([b'"text"'])


async def say_nothing(stream: SocketStream) -> None:
    await stream.receive()
    await anyio.sleep_forever()


async def stop_half_way(stream: SocketStream) -> None:
    await stream.receive()
    await stream.send(OK + b'[{"lab')
    await anyio.sleep_forever()


async def hang_up(stream: SocketStream) -> None:
    await stream.receive()
    await stream.send(OK + b'[{"lab')


async def reset(stream: SocketStream) -> None:
    await stream.receive()
    raw = stream.extra(SocketAttribute.raw_socket)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize(
    ("serve", "policy", "kind"),
    [
        (say_nothing, Policy(read_timeout=0.1), FailureKind.TIMEOUT),
        (say_nothing, Policy(timeout=0.1), FailureKind.TIMEOUT),
        (stop_half_way, Policy(read_timeout=0.1), FailureKind.TIMEOUT),
        (hang_up, Policy(), FailureKind.CONNECTION),
        (reset, Policy(), FailureKind.CONNECTION),
    ],
)
async def test_a_connection_that_breaks_or_goes_silent_costs_an_attempt(
    serve: Callable[[SocketStream], Awaitable[None]], policy: Policy, kind: FailureKind
) -> None:
    async with server(serve) as port:
        with pytest.raises(RequestFailed) as raised:
            await asked(f"http://127.0.0.1:{port}/", policy)
    assert raised.value.kind is kind


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "http://no-such-host.invalid/"])
async def test_a_server_that_cannot_be_reached_is_lost(url: str) -> None:
    with pytest.raises(EndpointLost, match="cannot connect"):
        await asked(url, Policy())


async def test_a_server_without_tls_is_not_trusted_with_a_tls_url() -> None:
    async def plain(stream: SocketStream) -> None:
        await stream.receive()
        await stream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with server(plain) as port:
        with pytest.raises(EndpointRefused, match="TLS"):
            await asked(f"https://127.0.0.1:{port}/", Policy())


async def test_a_redirect_is_not_followed() -> None:
    async def elsewhere(stream: SocketStream) -> None:
        await stream.receive()
        await stream.send(b"HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n")
        await anyio.sleep_forever()

    async with server(elsewhere) as port:
        with pytest.raises(EndpointRefused, match="redirects are not followed"):
            await asked(f"http://127.0.0.1:{port}/", Policy())


CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
ZIPPED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b"
SQUEEZED = gzip.compress(b'["a long answer that is cut"]' * 20)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(CHUNKED + b'5\r\n["lab\r\n', id="cut between chunks"),
        pytest.param(CHUNKED + b'5\r\n["l', id="cut within a chunk"),
        pytest.param(CHUNKED + b"zz\r\n", id="no length of a chunk"),
        pytest.param(ZIPPED % (4, b"abcd"), id="no gzip"),
        pytest.param(b"garbage\r\n\r\n", id="no HTTP"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n[]", id="a header without end"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n[]", id="two lengths"),
        pytest.param(b"", id="nothing"),
    ],
)
async def test_an_incomplete_answer_is_a_failure_that_reveals_no_secret(answer: bytes) -> None:
    async def serve(stream: SocketStream) -> None:
        await stream.receive()
        if answer:
            await stream.send(answer)

    async with server(serve) as port:
        with pytest.raises(RequestFailed) as raised:
            await asked(f"http://127.0.0.1:{port}/?key=secret", Policy())
    assert raised.value.kind is FailureKind.CONNECTION
    assert "secret" not in str(raised.value)


async def test_a_truncated_gzip_is_not_an_answer() -> None:
    async def serve(stream: SocketStream) -> None:
        await stream.receive()
        await stream.send(ZIPPED % (len(SQUEEZED) - 12, SQUEEZED[:-12]))

    async with server(serve) as port:
        with pytest.raises(RequestFailed):
            await asked(f"http://127.0.0.1:{port}/", Policy())


@pytest.mark.parametrize("header", [b"RateLimit: \xe9", b"Retry-After: \xff", b"Location: /\xc3\xa9"])
@pytest.mark.parametrize("status", [b"200 OK", b"307 Moved", b"429 Wait"])
async def test_a_non_ascii_header_does_no_harm(status: bytes, header: bytes) -> None:
    async def serve(stream: SocketStream) -> None:
        await stream.receive()
        await stream.send(b"HTTP/1.1 " + status + b"\r\n" + header + b"\r\nContent-Length: 2\r\n\r\n[]")

    async with server(serve) as port:
        if status == b"200 OK":
            assert await asked(f"http://127.0.0.1:{port}/", Policy()) == [[]]
        else:
            with pytest.raises((RequestFailed, EndpointRefused)):
                await asked(f"http://127.0.0.1:{port}/", Policy())


@pytest.mark.parametrize("begun", [b"", OK + b'[{"lab'], ids=["before the answer", "within the answer"])
async def test_the_server_sees_that_a_request_was_cancelled(begun: bytes) -> None:
    asking, gone = anyio.Event(), anyio.Event()

    async def serve(stream: SocketStream) -> None:
        await stream.receive()
        if begun:
            await stream.send(begun)
        asking.set()
        with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
            await stream.receive()
        gone.set()

    async with server(serve) as port:
        endpoint = HttpEndpoint(f"http://127.0.0.1:{port}/")
        async with endpoint.control() as control, control.connect(Policy()) as data:
            async with anyio.create_task_group() as group:
                group.start_soon(data.ask, [b'"text"'])
                await asking.wait()
                group.cancel_scope.cancel()
            with anyio.fail_after(
                DEADLINE
            ):  # the data plane is still open: it is the cancellation that the server sees
                await gone.wait()


async def test_a_request_that_was_sent_is_never_sent_again_behind_our_back() -> None:
    requests = 0

    async def serve(stream: SocketStream) -> None:
        nonlocal requests
        await stream.receive()
        requests += 1
        await stream.send(WHOLE)
        await stream.receive()  # the second one on the same connection: read, and not answered
        requests += 1

    async with server(serve) as port:
        endpoint = HttpEndpoint(f"http://127.0.0.1:{port}/")
        async with endpoint.control() as control, control.connect(Policy()) as data:
            assert await data.ask([b'"text"']) == [[]]
            with pytest.raises(RequestFailed) as raised:
                await data.ask([b'"text"'])
    assert raised.value.kind is FailureKind.CONNECTION
    assert requests == 2


async def test_hundreds_of_requests_are_in_flight_at_once() -> None:
    here, many = 0, anyio.Event()

    async def serve(stream: SocketStream) -> None:
        nonlocal here
        await stream.receive()
        here += 1
        if here == 600:
            many.set()
        await many.wait()
        await stream.send(WHOLE)

    async with server(serve) as port:
        endpoint = HttpEndpoint(f"http://127.0.0.1:{port}/")
        async with (
            endpoint.control() as control,
            control.connect(Policy()) as data,
            anyio.create_task_group() as group,
        ):
            for _ in range(600):
                group.start_soon(data.ask, [b'"text"'])
    assert here == 600


async def test_a_connection_that_the_server_closed_meanwhile_is_replaced() -> None:
    closed, connections = anyio.Event(), 0

    async def serve(stream: SocketStream) -> None:
        nonlocal connections
        connections += 1
        await stream.receive()
        await stream.send(WHOLE)
        await stream.aclose()
        closed.set()

    async with server(serve) as port:
        endpoint = HttpEndpoint(f"http://127.0.0.1:{port}/")
        async with endpoint.control() as control, control.connect(Policy()) as data:
            assert await data.ask([b'"text"']) == [[]]
            await closed.wait()
            await anyio.wait_all_tasks_blocked()
            assert await data.ask([b'"text"']) == [[]]
    assert connections == 2


async def test_an_unused_connection_is_closed_with_the_data_plane() -> None:
    gone = anyio.Event()

    async def serve(stream: SocketStream) -> None:
        await stream.receive()
        await stream.send(WHOLE)
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            await stream.receive()
        gone.set()

    async with server(serve) as port:
        await asked(f"http://127.0.0.1:{port}/", Policy())
        with anyio.fail_after(DEADLINE):
            await gone.wait()


async def test_an_answer_that_is_too_large_closes_its_connection() -> None:
    gone = anyio.Event()

    async def serve(stream: SocketStream) -> None:
        await stream.receive()
        with suppress(anyio.BrokenResourceError):
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n" + b"x" * 2000)
            with suppress(anyio.EndOfStream):
                await stream.receive()
        gone.set()

    async with server(serve) as port:
        endpoint = HttpEndpoint(f"http://127.0.0.1:{port}/")
        async with endpoint.control() as control, control.connect(Policy(max_answer_bytes=1000)) as data:
            with pytest.raises(RequestFailed, match="larger than"):
                await data.ask([b'"text"'])
            with anyio.fail_after(DEADLINE):
                await gone.wait()


async def test_a_server_that_takes_no_connection_is_lost() -> None:
    with closing(socket.socket()) as full, ExitStack() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # more than it lets wait: the kernel drops what comes after them
            one = waiting.enter_context(closing(socket.socket()))
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        policy = Policy(connect_timeout=0.3, read_timeout=0.2)
        with pytest.raises(EndpointLost, match="no connection before the time-out"):
            await asked(f"http://127.0.0.1:{full.getsockname()[1]}/", replace(policy, read_timeout=None))
        with pytest.raises((EndpointLost, RequestFailed)) as raised:
            await asked(f"http://127.0.0.1:{full.getsockname()[1]}/", policy)
        assert isinstance(raised.value, EndpointLost)


async def test_a_quota_in_several_header_lines_is_read_whole() -> None:
    used_up = b'HTTP/1.1 200 OK\r\nratelimit: "a";r=5;t=1\r\nRateLimit: "b";r=0;t=60\r\nContent-Length: 2\r\n\r\n[]'

    async def serve(stream: SocketStream) -> None:
        await stream.receive()
        await stream.send(used_up)

    async with server(serve) as port:
        endpoint = HttpEndpoint(f"http://127.0.0.1:{port}/")
        async with endpoint.control() as control, control.connect(Policy()) as data:
            await data.ask([b'"text"'])
            assert data.quiet_until > time.monotonic() + 30


async def test_without_descriptors_a_request_is_not_charged() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with closing(socket.create_server(("127.0.0.1", 0))) as listening, closing(socket.socket()) as newest:
        endpoint = HttpEndpoint(f"http://127.0.0.1:{listening.getsockname()[1]}/")
        async with endpoint.control() as control, control.connect(Policy()) as data:
            with ExitStack() as taken:
                taken.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
                resource.setrlimit(resource.RLIMIT_NOFILE, (newest.fileno() + 20, hard))
                with suppress(OSError):
                    while True:
                        taken.callback(os.close, os.dup(newest.fileno()))
                with pytest.raises(NoRoom, match="Too many open files"):
                    await data.ask([b'"text"'])


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")

    async def serve(stream: SocketStream) -> None:
        await stream.receive()
        await stream.send(WHOLE)

    async with server(serve) as port:
        assert await asked(f"http://127.0.0.1:{port}/", Policy()) == [[]]


def certificate(folder: Path, name: str) -> Path:
    """A self-signed certificate for this name, with its key, in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl to make a certificate")
    file, key = folder / f"{name}.pem", folder / f"{name}.key"
    what = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-days", "2", "-nodes"]
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", *what, "-keyout", str(key), "-out", str(file)]
    subprocess.run(command, check=True, capture_output=True)
    file.write_bytes(file.read_bytes() + key.read_bytes())
    return file


@asynccontextmanager
async def tls_server(file: Path) -> AsyncIterator[int]:
    """A TLS server with this certificate, which answers every request; gives its port."""

    async def handle(stream: ByteStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(WHOLE)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    plain = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with TLSListener(plain, context, standard_compatible=False) as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, handle)
        yield plain.extra(SocketAttribute.local_port)
        group.cancel_scope.cancel()


ASK = """
import asyncio, sys
from orchestrator import Policy
from orchestrator.endpoints import HttpEndpoint

async def ask():
    async with HttpEndpoint(sys.argv[1]).control() as control, control.connect(Policy()) as data:
        return await data.ask([b'"text"'])

try:
    print(asyncio.run(ask()))
except Exception as failure:
    print(type(failure).__name__, failure)
"""


@pytest.mark.parametrize(
    ("issued_to", "known", "said"),
    [
        ("localhost", True, "[[]]"),
        ("localhost", False, "EndpointRefused"),
        ("elsewhere.example", True, "EndpointRefused"),
    ],
    ids=["trusted", "not trusted", "another host"],
)
async def test_certificates_are_checked_against_ssl_cert_file(
    issued_to: str, *, known: bool, said: str, tmp_path: Path
) -> None:
    file = await anyio.to_thread.run_sync(certificate, tmp_path, issued_to)
    environment = os.environ | ({"SSL_CERT_FILE": str(file)} if known else {})
    async with tls_server(file) as port:
        url = f"https://localhost:{port}/?key=secret"
        done = await anyio.run_process([sys.executable, "-c", ASK, url], env=environment)
    answer = done.stdout.decode()
    assert answer.startswith(said)
    assert ("cannot be trusted" in answer) == (said != "[[]]")
    assert "secret" not in answer
    assert not done.stderr


def sends(head: bytes, body: bytes = b"") -> Callable[[SocketStream], Awaitable[None]]:
    async def serve(stream: SocketStream) -> None:
        await stream.receive()
        with suppress(anyio.BrokenResourceError):
            await stream.send(b"HTTP/1.1 " + head + b"\r\nConnection: close\r\n\r\n" + body)

    return serve


BOMB = gzip.compress(b'"' + b"x" * 5_000_000 + b'"')


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"200 OK\r\nContent-Encoding: gzip", BOMB),
        (b"200 OK\r\nContent-Length: 2000000", b"x" * 2_000_000),
        (b"200 OK\r\nTransfer-Encoding: chunked", b"10000\r\n" + b"x" * 65536 + b"\r\n" + b"10000\r\n" + b"x" * 65536),
    ],
)
async def test_an_answer_that_is_too_large_is_not_read_to_its_end(head: bytes, body: bytes) -> None:
    async with server(sends(head, body)) as port:
        with pytest.raises(RequestFailed, match=r"larger than policy\.max_answer_bytes=100,000") as raised:
            await asked(f"http://127.0.0.1:{port}/", Policy(max_answer_bytes=100_000))
    assert raised.value.kind is FailureKind.BAD_ANSWER


async def test_only_the_beginning_of_a_failure_is_read_and_its_status_counts() -> None:
    async with server(sends(b"429 Slow down\r\nContent-Encoding: gzip", BOMB)) as port:
        with pytest.raises(RequestFailed) as raised:
            await asked(f"http://127.0.0.1:{port}/", Policy(max_error_bytes=1000))
    assert raised.value.kind is FailureKind.RATE_LIMITED
    assert len(raised.value.message) == 500


@pytest.mark.parametrize(
    "answer",
    [
        b"400 Bad\r\nX: y",
        b"200 OK\r\nX: y",
        b"401 Who\r\nX: y",
        b"503 Away\r\nX: y",
        b"307 Moved\r\nLocation: https://u:%s@elsewhere/%s?key=%s",
    ],
)
async def test_no_failure_contains_a_secret_that_was_sent(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    token, key = "s3cretT0kenValue", "k3y-of-somebody"
    monkeypatch.setenv("TOKEN_OF_TESTS", token)
    head = answer.replace(b"%s", token.encode())
    body = b'{"error": "%s you sent Bearer %s and %s"}' % (b"x" * 470, token.encode(), key.encode())
    async with server(sends(head, body)) as port:
        url, variable = f"http://127.0.0.1:{port}/?sig=q{token}", "TOKEN_OF_TESTS"
        endpoint = HttpEndpoint(url, headers={"X-Api-Key": key}, token_env=variable)
        async with endpoint.control() as control, control.connect(Policy()) as data:
            with pytest.raises((RequestFailed, EndpointLost, EndpointRefused)) as raised:
                await data.ask([b'"text"'])
    said = "".join(traceback.format_exception(raised.value))
    assert token[:9] not in said
    assert key[:9] not in said


@pytest.mark.parametrize(
    ("answer", "failure"), [(b"400 Bad", RequestFailed), (b"500 Bad", RequestFailed), (b"404 No", EndpointRefused)]
)
async def test_the_body_of_an_error_response_is_kept_on_request_without_secrets(
    answer: bytes, failure: type[RequestFailed | EndpointRefused], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN_OF_TESTS", "s3cretT0kenValue")
    async with server(sends(answer, b'{"error": {"message": "s3cretT0kenValue is no key"}}')) as port:
        endpoint = HttpEndpoint(f"http://127.0.0.1:{port}/", token_env="TOKEN_OF_TESTS")
        for kept, body in ((True, '{"error": {"message": "*** is no key"}}'), (False, None)):
            async with endpoint.control() as control, control.connect(Policy(keep_error_bodies=kept)) as data:
                with pytest.raises(failure) as raised:
                    await data.ask([b'"text"'])
            assert isinstance(raised.value, RequestFailed | EndpointRefused)
            assert raised.value.body == body
            assert not kept or raised.value.status == int(answer[:3])


async def test_an_upgrade_to_another_protocol_leaves_no_connection_open() -> None:
    async with server(sends(b"101 Switching\r\nUpgrade: websocket")) as port:
        with pytest.raises(RequestFailed):
            await asked(f"http://127.0.0.1:{port}/", Policy())
    gc.collect()  # would tell of it


# -- what is sent along ------------------------------------------------------------------------------------------------


VARIABLE = "KEY_OF_A_TEST"


async def sent_with(endpoint: HttpEndpoint) -> str:
    """The head of a request that the endpoint makes."""
    heard: list[bytes] = []

    async def hear(stream: SocketStream) -> None:
        heard.append(await stream.receive())
        await stream.send(WHOLE)

    async with server(hear) as port:
        there = replace(endpoint, url=f"http://127.0.0.1:{port}/")
        async with there.control() as control, control.connect(Policy()) as data:
            await data.ask([b'"text"'])
    return heard[0].decode()


async def test_a_line_end_after_a_secret_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, " abc-123\r\n")
    head = await sent_with(HttpEndpoint("http://h/", token_env=VARIABLE, headers={"X-Api-Key": "def\n"}))
    assert "Authorization: Bearer abc-123\r\n" in head
    assert "X-Api-Key: def\r\n" in head


@pytest.mark.parametrize("token", ["hunter\x012", "hunter 2", "hunter\nhunter2", "hunt\u00e9r22", "\u200bhunter"])
async def test_a_token_that_cannot_be_sent_fails_in_one_line_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv(VARIABLE, token)
    with pytest.raises(UsageError, match="KEY_OF_A_TEST holds is not a token: set the environment variable") as raised:
        async with HttpEndpoint("http://h/", token_env=VARIABLE).control():
            pass
    assert "hunt" not in str(raised.value)


def test_a_header_that_cannot_be_sent_is_refused_where_it_is_declared() -> None:
    with pytest.raises(ValueError, match=r"headers\['X-Api-Key'\] contains a line end"):
        HttpEndpoint("http://h/", headers={"X-Api-Key": "a\nb"})
