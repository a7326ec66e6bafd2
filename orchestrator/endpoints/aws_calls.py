"""Calls of AWS's JSON APIs, with their own deadlines and retries."""

from __future__ import annotations

import os
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import anyio
import orjson

from orchestrator.domain.errors import EndpointFailed
from orchestrator.domain.proxies import proxy_for
from orchestrator.endpoints.api_calls import ApiTimeouts, Trouble, session_of_calls, until_answered
from orchestrator.endpoints.aws_access import AwsAccess
from orchestrator.endpoints.bodies import beginning
from orchestrator.wires import failures
from orchestrator.wires.aiohttp_failures import why_not_connected
from orchestrator.wires.aws_failures import THROTTLED, code_of, refusal, said_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

API_TIMEOUTS = ApiTimeouts()
_MOST_BYTES = 16_000_000  # of an answer
_TARGETS = {"sagemaker": "SageMaker", "logs": "Logs_20140328"}
_JSON = "application/x-amz-json-1.1"
_MISSING = re.compile(r"could not find|does not exist|not found", re.IGNORECASE)
_EXISTS = re.compile(r"already exist", re.IGNORECASE)


class AwsDeclined(EndpointFailed):
    """AWS understood the call and refused it. `code`: its name for the failure."""

    def __init__(self, call: str, code: str, said: str) -> None:
        super().__init__(f"{call} was declined by AWS ({code}: {said})")
        self.code = code
        self.said = said

    @property
    def missing(self) -> bool:
        """Whether there is no such thing."""
        return self.code.startswith("ResourceNotFound") or _MISSING.search(self.said) is not None

    @property
    def exists(self) -> bool:
        """Whether what was to be created is there already."""
        return _EXISTS.search(self.said) is not None


@dataclass(frozen=True, slots=True)
class AwsCalls:
    """Makes signed calls in one region.

    Every call ends within its `ApiTimeouts`. It is tried again after throttling, server errors, time-outs, broken
    connections and malformed answers; when the time is up, it raises `EndpointSilent`. It raises `EndpointRefused` if
    AWS refuses the credentials, and names the permission that is missing, and `AwsDeclined` if AWS refuses the call. No
    redirect is followed, so a signature goes to the service that it is for, and nowhere else.
    """

    session: aiohttp.ClientSession
    access: AwsAccess
    timeouts: ApiTimeouts

    @classmethod
    @asynccontextmanager
    async def open(cls, region: str | None, profile: str | None) -> AsyncIterator[Self]:
        """Find the credentials and open a session. Raises `UsageError` if there are none."""
        access = await AwsAccess.find(region, profile)
        async with session_of_calls() as session:
            yield cls(session, access, API_TIMEOUTS)

    async def call(self, service: str, operation: str, parameters: Mapping[str, object]) -> Mapping[str, Any]:
        """Return the answer of an operation."""
        name = f"{service}:{operation}"
        headers = {"Content-Type": _JSON, "X-Amz-Target": f"{_TARGETS[service]}.{operation}"}
        content = orjson.dumps(parameters)

        async def one_try(_number: int) -> Mapping[str, Any]:
            try:
                with anyio.fail_after(self.timeouts.one):
                    return await self._try(service, name, headers, content)
            except TimeoutError as error:
                raise Trouble(f"nothing within {self.timeouts.one:g} s") from error
            except (aiohttp.ClientError, OSError) as error:
                raise Trouble(why_not_connected(error) or str(error) or type(error).__name__) from error

        return await until_answered(name, one_try, self.timeouts)

    async def _try(self, service: str, name: str, headers: Mapping[str, str], content: bytes) -> Mapping[str, Any]:
        url = f"{self.access.url(service)}/"
        signed = await self.access.signed(service, "POST", url, content, headers)
        proxy = proxy_for(url, os.environ)
        async with self.session.post(url, data=content, headers=signed, allow_redirects=False, proxy=proxy) as response:
            body, whole = await beginning(response, _MOST_BYTES)
        if response.status == HTTPStatus.OK and whole:
            if not body:
                return {}
            if (document := failures.fields_of(body)) is None:
                raise Trouble(f"a malformed answer: {failures.words(body)}")
            return document
        said = self.access.hidden_in(said_in(body))
        code = code_of(response.headers, body)
        if (refused := refusal(name, code, said)) is not None:
            raise refused
        if code in THROTTLED or not code or response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise Trouble(f"{response.status} ({said})", failures.retry_after(response.headers))
        raise AwsDeclined(name, code, said)
