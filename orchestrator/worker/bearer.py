"""The token that clients of a worker on a port must send: others on the network can reach the port as well."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from orchestrator.domain.worker import CONTAINER_TOKEN_HEADER

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware


@dataclass(frozen=True, slots=True)
class Key:
    """The header that a client must send, and its value. `open_path`: a path that needs none."""

    header: str
    value: str
    open_path: str | None = None

    @property
    def refusal(self) -> str:
        """Why a request without it is refused."""
        wanted = f"{self.header}: Bearer TOKEN" if self.header == "Authorization" else self.header
        return f"the header {wanted} is missing, or its token is another one"

    def opens(self, request: web.Request) -> bool:
        """Whether a request may be answered."""
        given = request.headers.get(self.header, "").encode(errors="surrogateescape")
        return request.path == self.open_path or hmac.compare_digest(given, self.value.encode())

    @property
    def middleware(self) -> Middleware:
        """What answers 401 to every request that may not be answered."""

        @web.middleware
        async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
            if not self.opens(request):
                return web.json_response({"error": self.refusal}, status=401)
            return await handler(request)

        return check


def bearer(token: str) -> Key:
    """Return the key that is this bearer token."""
    return Key("Authorization", f"Bearer {token}")


def container_key(token: str) -> Key:
    """Return the key of a worker in a container, whose health anybody may ask for.

    It has a header of its own: `Authorization` is that of whatever passes requests on to the container.
    """
    return Key(CONTAINER_TOKEN_HEADER, token, open_path="/health")
