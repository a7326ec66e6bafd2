"""One request to a real server, and what comes back, byte for byte."""

from __future__ import annotations

import asyncio
import http.client
import re
from types import MappingProxyType
from typing import TYPE_CHECKING

import orjson
from yarl import URL

from tests.wires.servers.recording import Reply

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.wires import Wire

KEPT = re.compile(
    r"^(content-type|retry-after(-ms)?|server|connection|allow|location|www-authenticate|x-should-retry|ratelimit.*"
    r"|x-ratelimit-.*)$"
)
PATIENCE = 120.0  # seconds for an answer


def asked(
    url: str,
    wire: Wire,
    requests: Sequence[object],
    patience: float = PATIENCE,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Reply:
    """Send what the wire makes of these requests, and return what comes back."""
    body = asyncio.run(wire.pack([orjson.dumps(request) for request in requests]))
    sent = {"Content-Type": body.content_type, **headers}
    return _sent(body.method, wire.url(URL(url)), body.content, sent, patience)


def got(url: str, route: str) -> Reply:
    """GET a route."""
    return _sent("GET", URL(url).join(URL(route)), None, {}, patience=10.0)


def _sent(method: str, url: URL, body: bytes | None, headers: Mapping[str, str], patience: float) -> Reply:
    """Send one request on a connection of its own. A connection that fails is a reply without a status."""
    connection = http.client.HTTPConnection(url.host or "", url.port, timeout=patience)
    try:
        connection.request(method, url.raw_path, body, dict(headers))
        response = connection.getresponse()
        content = response.read().decode(errors="replace")
        kept = {name.title(): value for name, value in response.getheaders() if KEPT.match(name.lower())}
        return Reply(response.status, kept, content)
    except ConnectionRefusedError:
        return Reply(None, {}, "refused")
    except TimeoutError:
        return Reply(None, {}, "silent")
    except (OSError, http.client.HTTPException):
        return Reply(None, {}, "closed")
    finally:
        connection.close()
