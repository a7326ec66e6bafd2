"""An operation of `/api`: its path, what may be asked, who answers, and what the answer looks like.

One declaration checks the request, calls the handler, and makes the operation's part of the OpenAPI document.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from aiohttp import web
from pydantic import ValidationError

from orchestrator import exact_json
from orchestrator.domain.errors import UsageError
from orchestrator.domain.identity import Role
from orchestrator.server.api.requests import RequestModel
from orchestrator.server.context import identity_of
from orchestrator.server.failures import Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from orchestrator.server.api.answers import ResponseModel

A = TypeVar("A", bound=RequestModel)
Method = Literal["GET", "POST"]


@dataclass(frozen=True, slots=True)
class Operation(Generic[A]):
    """One method of one path. A GET is asked with a query, a POST with a JSON body.

    `handle`: its name and its docstring name and explain the operation. `answers`: the type of what it returns.
    `needs`: the least role. `wrong`: the status if the request is fine, but what it asks for cannot be done.
    """

    method: Method
    path: str
    handle: Callable[[web.Request, A], Awaitable[object]]
    asks: type[A]
    answers: type[ResponseModel]
    needs: Role = Role.READ
    wrong: int = 400

    async def answer(self, request: web.Request) -> web.Response:
        """Check the request, and answer it."""
        if not identity_of(request).role.includes(self.needs):
            raise Refused(403, f"this needs the role {self.needs}")
        asked = self._query(request) if self.method == "GET" else await self._body(request)
        try:
            found = await self.handle(request, asked)
        except UsageError as error:
            raise Refused(self.wrong, str(error)) from error
        return web.Response(body=exact_json.dumps(found, default=str), content_type="application/json")

    def _query(self, request: web.Request) -> A:
        if len(set(request.query)) < len(request.query):
            raise Refused(400, "a parameter of the query is given twice")
        try:
            return self.asks.model_validate(dict(request.query))
        except ValidationError as error:
            raise Refused(400, _words(error)) from error

    async def _body(self, request: web.Request) -> A:
        if request.query:
            raise Refused(400, "an action takes no query, but a JSON object as its body")
        body = await request.read()
        if body and request.content_type != "application/json":
            raise Refused(415, "the body must be JSON, with Content-Type: application/json")
        try:
            return self.asks.model_validate_json(body or b"{}")
        except ValidationError as error:
            raise Refused(400, _words(error)) from error


def _words(error: ValidationError) -> str:
    """Return what is wrong first, in one line."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"]
