"""Hostile HTTP answers made from correct ones: the same for the same seed."""

from __future__ import annotations

import gzip
import json
import random
import re
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# JSON texts, some of them invalid
_ODD = [
    "null", "true", "false", "0", "-1", "-0.0", "1e308", "1e400", "5e-324", "9007199254740993", "9223372036854775808",
    "18446744073709551615", "-9223372036854775809", "1" * 30, "1" * 5000, "NaN", "-Infinity", '""', '" "', '"0"',
    '"\\ud83d"', '"\\udc00\\ud800"', '"\\u0000"', '"\\u001b[2J\\u001b]0;owned\\u0007"', '"\\u009b31m\\u202egnp.exe"',
    '"[red]x[/red] [link=http://e]"', '"a\\nrun 9 of job: finished\\r"', '"' + "x" * 70_000 + '"', '"\\x"',
    '"\u2028\ufeff"', "[]", "{}", "[[]]", "[null]", "[{}]", '{"error": "overloaded"}',
    '{"error": {"message": {"detail": [1]}}}',
    '{"a": 1, "a": 2}', '{"": {"\\u0000": []}}', '{"index": -1}', "[0.1, null]", "[1, 2.5]", "+1", "01", "[1,]", "'a'",
]  # fmt: skip
_DEPTHS = (100, 240, 246, 247, 253, 254, 255, 256, 400, 1000, 1023, 1024, 1025, 5000)
_WAITS = (
    "0", "-1", "0.001", "nan", "inf", "-inf", "1e308", "99999999999999999", "9" * 400, "soon", "", "1e-320",
    "Fri, 31 Dec 1999 23:59:59 +99999999999999", "Fri, 31 Dec 9999 23:59:59 -2400", "Sun, 06 Nov 1994 08:49:37",
    "Sun Nov  6 08:49:37 1994", "Mon, 99 Foo 0000 99:99:99 GMT", "Tue, 1 Jan 0001 00:00:00 +2359", "١٢",
)  # fmt: skip
_STATUSES = (200,) * 24 + (201, 204, 206, 400, 408, 409, 413, 422, 424, 425, 429, 500, 502, 503, 504, 529, 599, 999)
_LARGE = 1_000_000  # bytes
_PLACEHOLDER = re.compile(r'"@(\d+)@"')


def mutant(seed: int, honest: bytes, statuses: tuple[int, ...] = _STATUSES, *, waits: bool = True) -> bytes:
    """Return an answer that differs from the correct body in its values, its bytes, its HTTP, or all of them."""
    draw = random.Random(seed)
    body = honest
    for _ in range(draw.choice((0, 1, 1, 1, 2, 3))):
        body = _other_value(draw, body)
    if draw.random() < 0.15:
        body = _other_bytes(draw, body)
    status = draw.choice(statuses)
    headers = [
        b"Content-Type: " + draw.choice((b"application/json",) * 8 + (b"text/html; charset=\xff", b"", b"a/b;c"))
    ]
    if waits and (draw.random() < 0.2 or status in {429, 503}):
        name = draw.choice(("Retry-After", "retry-after-ms", "RateLimit", "x-ratelimit-reset-requests"))
        headers.append(f"{name}: {draw.choice(_WAITS)}".encode())
        headers.append(b"x-ratelimit-remaining-requests: 0")
    if draw.random() < 0.2:
        return _odd_http(draw, status, headers, body)
    if draw.random() < 0.1:
        body, encoding = _packed(draw, body)
        headers.append(b"Content-Encoding: " + encoding)
    return _http(status, [*headers, b"Content-Length: %d" % len(body)], body)


def http_answer(status: int, body: bytes) -> bytes:
    """Return a correct HTTP answer."""
    return _http(status, [b"Content-Type: application/json", b"Content-Length: %d" % len(body)], body)


def _http(status: int, headers: list[bytes], body: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 %d So" % status, *headers, b"Connection: close", b"", b""]) + body


def _other_value(draw: random.Random, body: bytes) -> bytes:  # noqa: C901 - one way for each kind of change
    """Replace, remove or duplicate a value somewhere in the JSON."""
    try:
        whole = [json.loads(body)]
    except (ValueError, RecursionError):
        return body
    place: Any = whole
    step: Any = 0
    while isinstance(place[step], list | dict) and place[step] and draw.random() < 0.75:
        place = place[step]
        step = draw.choice(list(place) if isinstance(place, dict) else range(len(place)))
    odd: list[str] = []

    def planted(text: str) -> str:
        odd.append(text)
        return f"@{len(odd) - 1}@"

    match draw.choice(("odd", "odd", "odd", "deep", "missing", "twice", "wrapped", "many", "key")):
        case "odd":
            place[step] = planted(draw.choice(_ODD))
        case "deep":
            opening, closing = draw.choice((("[", "]"), ('{"a":', "}"), ('[{"error":', "}]")))
            depth = draw.choice(_DEPTHS) // len(closing)
            place[step] = planted(opening * depth + draw.choice(_ODD[:4]) + closing * depth)
        case "missing" if place is not whole:
            del place[step]
        case "twice" if isinstance(place, list) and place is not whole:
            place.append(place[step])
        case "wrapped":
            place[step] = draw.choice(([place[step]], {"value": place[step]}, json.dumps(place[step])))
        case "many":
            most = max(2, _LARGE // len(json.dumps(place[step])))  # several of these changes would fill the memory
            place[step] = [place[step]] * min(most, draw.choice((2, 300, 3000)))
        case "key" if isinstance(place, dict):
            place[draw.choice(("error", "index", "usage", "", "\x1b[31m", "label"))] = planted(draw.choice(_ODD))
        case _:
            place[step] = None
    return _PLACEHOLDER.sub(lambda found: odd[int(found[1])], json.dumps(whole[0])).encode(errors="surrogatepass")


def _other_bytes(draw: random.Random, body: bytes) -> bytes:
    at = draw.randrange(len(body) + 1)
    changes: list[Callable[[], bytes]] = [
        lambda: body[:at],
        lambda: body[at:],
        lambda: body + body,
        lambda: body + b"\n\0trailing",
        lambda: b"\xef\xbb\xbf" + body,
        lambda: body.decode(errors="replace").encode("utf-16"),
        lambda: body[:at] + draw.randbytes(draw.choice((1, 3, 40))) + body[at + 1 :],
        lambda: body[:at] + b"\xff\xc0\x80\xed\xa0\x80" + body[at:],
        lambda: b"",
        lambda: b"\0" * 1000,
        lambda: b"data: " + body + b"\n\ndata: [DONE]\n\n",
        lambda: b"<html><script>alert(1)</script>\x1b]52;c;AAAA\x07</html>",
        lambda: draw.randbytes(200),
    ]
    return draw.choice(changes)()


def _packed(draw: random.Random, body: bytes) -> tuple[bytes, bytes]:
    packed = gzip.compress(body)
    return draw.choice(
        (
            (packed, b"gzip"),
            (packed[:-6], b"gzip"),
            (packed + b"\0garbage", b"gzip"),
            (body, b"gzip"),
            (zlib.compress(body), b"deflate"),
            (zlib.compress(body)[2:], b"deflate"),
            (gzip.compress(packed), b"gzip, gzip"),
            (body, b"br"),
            (body, b"zstd"),
            (body, b"no-such-thing"),
            (gzip.compress(b"[" * 3_000_000), b"gzip"),
        )
    )


def _odd_http(draw: random.Random, status: int, headers: list[bytes], body: bytes) -> bytes:
    """Return slightly broken or excessive HTTP."""
    length = b"Content-Length: %d" % len(body)
    chunked = [*headers, b"Transfer-Encoding: chunked"]
    changes: list[Callable[[], bytes]] = [
        lambda: _http(status, headers, body),  # until it is closed
        lambda: _http(status, [*headers, b"Content-Length: %d" % (len(body) + 10)], body),
        lambda: _http(status, [*headers, b"Content-Length: %d" % max(0, len(body) - 3)], body),
        lambda: _http(status, [*headers, b"Content-Length: -1"], body),
        lambda: _http(status, [*headers, b"Content-Length: 99999999999999999999"], body),
        lambda: _http(status, [*headers, length, length + b"0"], body),
        lambda: _http(status, chunked, b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)),
        lambda: _http(status, chunked, b"zz\r\n" + body),
        lambda: _http(status, chunked, b"ffffffffffffffff\r\n" + body),
        lambda: _http(status, [*chunked, length], body),
        lambda: _http(status, [*headers, *[b"X-%d: y" % number for number in range(2000)], length], body),
        lambda: _http(status, [*headers, b"X-Long: " + b"y" * 100_000, length], body),
        lambda: _http(
            status, [*headers, b"Set-Cookie: a=b; Domain=.example.com", b"X: \x00\x1b[31m\xff", length], body
        ),
        lambda: _http(status, [b"no colon here", length], body),
        lambda: b"HTTP/1.1 100 Continue\r\n\r\n" * 20 + _http(status, [*headers, length], body),
        lambda: _http(101, [b"Upgrade: websocket", b"Connection: Upgrade"], body),
        lambda: b"HTTP/9.9 abc\r\n\r\n" + body,
        lambda: b"\x16\x03\x01\x02\x00" + draw.randbytes(30),
        lambda: b"",
        lambda: body,
        lambda: _http(status, [*headers, length], body).replace(b"\r\n", b"\n"),
        lambda: b"HTTP/1.1 200 " + b"O" * 20_000 + b"K\r\n\r\n" + body,
    ]
    return draw.choice(changes)()
