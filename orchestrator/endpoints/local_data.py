"""The data plane of a worker on this machine: batches over its socket."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

import aiohttp

from orchestrator import exact_json
from orchestrator.domain.answer import Answer, Note, input_cut_to
from orchestrator.domain.errors import EndpointLost, FailureKind, RequestFailed
from orchestrator.domain.worker import COMPUTING
from orchestrator.endpoints.bodies import beginning, too_large
from orchestrator.wires import failures
from orchestrator.wires.files import contents_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.domain.batching import Limits
    from orchestrator.domain.policy import Policy
    from orchestrator.ports import Again

_TOP_K = b'"top_k"'  # a request with it asks for a list
_MAX_IN_FLIGHT = 2  # one batch is computed while the next one waits
_OK = 200
_FAILURES = {  # any other status means that the request is wrong
    500: FailureKind.DUBIOUS,  # an unexpected exception, caused by one of these inputs
    503: FailureKind.UNAVAILABLE,  # the model is still loading
}


class WorkerProcess(Protocol):
    """The process that answers."""

    name: str

    async def kill(self) -> None:
        """Kill it, for example because it hangs."""

    async def how_it_ended(self) -> str:
        """Say how it ended after it broke a connection."""
        ...


class LocalData:
    """The data plane of one worker: a batch is sent as it is."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        worker: WorkerProcess,
        policy: Policy,
        limits: Limits,
        parameters: Mapping[str, object],
        *,
        bare: bool,
        elsewhere: bool = False,
        info: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        """`bare`: give labels without the list around them. `elsewhere`: the worker is on another machine.

        `info`: what its health route says.
        """
        self._session = session
        self._worker = worker
        self._timeout, self._most = policy.timeout, policy.max_answer_bytes
        tune = b',"tune":true' if policy.batch_size == "auto" else b""
        self._tail = b'],"parameters":' + exact_json.dumps(dict(parameters)) + tune
        self._elsewhere = elsewhere
        self._bare = bare
        self.max_in_flight = _MAX_IN_FLIGHT
        self.quiet_until = 0.0
        self.limits = limits
        self.computed_with = {name: info[name] for name in COMPUTING if info.get(name) is not None}

    async def metrics(self) -> None:
        """Return None: a worker has no metrics, and takes only two requests at once."""

    async def ask(self, requests: Sequence[bytes], again: Again | None = None) -> Sequence[object]:
        """Return one entry per request: the model's output, or why there is none."""
        files = await contents_in(requests, elsewhere=self._elsewhere)
        sent = b',"files":' + exact_json.dumps(files) if files else b""
        body = b'{"inputs":[' + b",".join(requests) + self._tail + sent + b"}"
        try:
            response = await self._session.post("/batch", data=body)
            content, whole = await beginning(response, self._most)
        except TimeoutError as error:  # its only thread may never return from the model
            await self._worker.kill()
            late = f"{self._worker.name}: no answer within {self._timeout:g} s, so the worker was ended"
            raise EndpointLost(late, blames_items=True) from error
        except aiohttp.ClientConnectorError as error:
            failures.check_room(error)
            raise EndpointLost(f"{self._worker.name}: the worker is gone") from error
        except (aiohttp.ClientError, OSError) as error:
            how = await self._worker.how_it_ended()
            raise EndpointLost(f"{self._worker.name}: the worker {how}, over a request", blames_items=True) from error
        if response.status != _OK:
            kind = _FAILURES.get(response.status, FailureKind.REJECTED)
            raise RequestFailed(kind, failures.words(content), status=response.status)
        if not whole:
            raise too_large(self._most)
        answers = [_answer(entry) for entry in exact_json.loads(content)["answers"]]
        if not self._bare:
            return answers
        return [
            _bare(answer) if _TOP_K not in request else answer
            for request, answer in zip(requests, answers, strict=True)
        ]


def _answer(entry: dict[str, object]) -> object:
    error = entry.get("error")
    if isinstance(error, dict):
        return RequestFailed(FailureKind(error["kind"]), error["message"])
    notes = {input_cut_to(limit)} if type(limit := entry.get(Note.INPUT_CUT)) is int else set[str]()
    notes |= {Note.CUT} if entry.get(Note.CUT) else set[str]()
    return Answer(entry["output"], notes=frozenset(notes)) if notes else entry["output"]


def _bare(answer: object) -> object:
    """Return a label without the list around it."""
    match answer:
        case Answer([label]):
            return replace(answer, value=label)
        case [label]:
            return label
    return answer
