"""`/api`: what the page and programs use, as JSON. The shapes are those that the commands print with `--json`.

`operations` says what an operation is, `requests` what may be asked, `answers` what is answered. `looking` and `acting`
have the handlers, and `document` the OpenAPI document, which is made from the same declarations.

`server/api/` declares each operation once (`Operation`: path, role, pydantic model of the query or body, model of
the answer, handler); the declaration checks requests and makes the OpenAPI document. Answers are made by
`report/listings.py` and `domain/report_json.py`, as for `--json`. A run of a batch belongs to the batch's owner,
every other one to the admin. A job file is submitted by a child process (`engine/daemon/submit_file.py`), since it
is the user's code.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from aiohttp import web

from orchestrator.domain.identity import Role
from orchestrator.server.api import acting, answers, looking
from orchestrator.server.api.document import document_of
from orchestrator.server.api.operations import Operation
from orchestrator.server.api.requests import (
    CostsAsked,
    EndpointsAsked,
    FailuresAsked,
    ItemsAsked,
    Nothing,
    Priority,
    ReadingsAsked,
    ReportAsked,
    Retry,
    RunsAsked,
    Submission,
    Tuning,
)

_RUN = "/api/runs/{run}"
_SCHEDULE = "/api/schedules/{job}"
OPERATIONS: tuple[Operation[Any], ...] = (
    Operation("GET", "/api/runs", looking.runs, RunsAsked, answers.Runs),
    Operation("GET", _RUN, looking.run, Nothing, answers.Status),
    Operation("GET", f"{_RUN}/items", looking.items, ItemsAsked, answers.Items),
    Operation("GET", f"{_RUN}/items/{{item}}", looking.item, Nothing, answers.ItemDetail),
    Operation("GET", f"{_RUN}/failures", looking.failures, FailuresAsked, answers.Failures),
    Operation("GET", f"{_RUN}/readings", looking.readings, ReadingsAsked, answers.Readings),
    Operation("GET", "/api/queue", looking.queue, Nothing, answers.Queue),
    Operation("GET", "/api/schedules", looking.schedules, Nothing, answers.Schedules),
    Operation("GET", "/api/endpoints", looking.endpoints, EndpointsAsked, answers.Endpoints),
    Operation("GET", "/api/costs", looking.costs, CostsAsked, answers.Costs),
    Operation("GET", "/api/report", looking.report, ReportAsked, answers.Report),
    Operation("POST", f"{_RUN}/hold", acting.hold, Nothing, answers.Run, Role.RUN, 409),
    Operation("POST", f"{_RUN}/go", acting.go, Nothing, answers.Run, Role.RUN, 409),
    Operation("POST", f"{_RUN}/tune", acting.tune, Tuning, answers.Run, Role.RUN, 409),
    Operation("POST", f"{_RUN}/cancel", acting.cancel, Nothing, answers.Run, Role.RUN, 409),
    Operation("POST", f"{_RUN}/prioritize", acting.prioritize, Priority, answers.Run, Role.RUN, 409),
    Operation("POST", f"{_RUN}/retry", acting.retry, Retry, answers.Retried, Role.RUN, 409),
    Operation("POST", "/api/submit", acting.submit, Submission, answers.Submitted, Role.ADMIN),
    Operation("POST", f"{_SCHEDULE}/pause", acting.pause_schedule, Nothing, answers.Scheduled, Role.ADMIN, 409),
    Operation("POST", f"{_SCHEDULE}/resume", acting.resume_schedule, Nothing, answers.Scheduled, Role.ADMIN, 409),
)


def routes() -> list[web.RouteDef]:
    """Return the routes of `/api`."""
    served = [web.route(operation.method, operation.path, operation.answer) for operation in OPERATIONS]
    return [*served, web.get("/api/openapi.json", _document)]


async def _document(_request: web.Request) -> web.Response:
    """Describe all operations."""
    return web.Response(body=_encoded(), content_type="application/json")


@cache
def _encoded() -> bytes:
    return document_of(OPERATIONS)
