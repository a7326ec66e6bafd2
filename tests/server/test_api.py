"""`/api`: what can be seen and done over HTTP, by whom, and the document that describes it."""

from __future__ import annotations

import time
import urllib.request
from typing import TYPE_CHECKING, Any

import orjson
import pytest
import schemathesis
from aiohttp import ClientSession
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import booleans
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from orchestrator.config import Server, ServerToken, Settings
from orchestrator.domain.batch import NewBatch
from orchestrator.domain.identity import Role
from orchestrator.domain.queue import Claim, Submission
from orchestrator.domain.readings import Reading
from orchestrator.domain.run import Plan, RunState, Spec
from orchestrator.server.api import OPERATIONS
from tests.commands import until
from tests.failed_runs import FAILURES, process, run_with_failures
from tests.server.conftest import TOKEN
from tests.servers import answer_to

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from tests.commands import Workplace
    from tests.server.conftest import HttpServer, Inside
    from tests.servers import InferenceServer


async def get(http: Inside, path: str, **query: str | int) -> Any:
    """Return the answer to a GET, which must be as it is declared."""
    async with http.client.get(path, params=query) as response:
        assert response.status == 200, await response.text()
        found = await response.json(loads=orjson.loads)
    (declared,) = (one for one in OPERATIONS if one.method == "GET" and http_matches(one.path, path))
    declared.answers.model_validate(found, strict=True)
    return found


def http_matches(declared: str, path: str) -> bool:
    wanted, given_ = declared.split("/"), path.split("/")
    return len(wanted) == len(given_) and all(
        name.startswith("{") or name == one for name, one in zip(wanted, given_, strict=True)
    )


async def post(http: Inside, path: str, body: object = None) -> tuple[int, Any]:
    async with http.client.post(path, json=body) as response:
        return response.status, await response.json(loads=orjson.loads)


# -- looking -----------------------------------------------------------------------------------------------------------


async def test_runs_are_listed_in_pages_by_job_and_by_state(http: Inside) -> None:
    store = http.app.store
    numbers = [(await run_with_failures(store, version=str(version))).id for version in range(5)]
    first = await get(http, "/api/runs", limit=3)
    assert [run["run"] for run in first["runs"]] == numbers[:1:-1]
    second = await get(http, "/api/runs", limit=3, before=first["next"])
    assert ([run["run"] for run in second["runs"]], second["next"]) == (numbers[1::-1], None)
    assert (await get(http, "/api/runs", limit=5))["next"] is None
    assert first["runs"][0]["counts"] == {"total": 5, "completed": 2, "discarded": 3, "leased": 0}
    assert (await get(http, "/api/runs", job="talk", state="finished"))["runs"]
    for nothing in ({"job": "another"}, {"state": "running"}):
        assert await get(http, "/api/runs", **nothing) == {"runs": [], "next": None}


async def test_a_run_is_shown_with_its_failures_by_cause(http: Inside) -> None:
    run = await run_with_failures(http.app.store)
    found = await get(http, f"/api/runs/{run.id}")
    assert (found["run"], found["state"], found["cost"]) == (run.id, "finished", None)
    causes = [(cause["kind"], cause["status"], cause["items"]) for cause in found["failures"]]
    assert causes == [("rejected", 400, 2), ("unavailable", 503, 1)]
    assert await get(http, "/api/runs/talk") == found
    assert (await get(http, f"/api/runs/{run.id}/failures", limit=1))["failures"] == found["failures"][:1]


async def test_items_are_listed_by_state_and_by_cause_in_pages(http: Inside) -> None:
    run = await run_with_failures(http.app.store)
    path = f"/api/runs/{run.id}/items"
    everything = await get(http, path)
    assert (len(everything["items"]), everything["next"]) == (5, None)
    assert (await get(http, path, limit=5))["next"] is None
    page = await get(http, path, state="discarded", limit=2)
    assert [item["id"] for item in page["items"]] == ["long 1", "long 2"]
    rest = await get(http, path, state="discarded", limit=2, after=page["next"])
    assert [item["id"] for item in rest["items"]] == ["busy"]
    assert [item["id"] for item in (await get(http, path, like="long 2"))["items"]] == ["long 1", "long 2"]
    one = await get(http, f"{path}/long 1")
    assert (one["state"], [attempt["message"] for attempt in one["attempts"]]) == (
        "discarded",
        ["4413 characters are too many"],
    )


async def test_measurements_are_shown_as_a_sample_or_from_a_moment_on(http: Inside) -> None:
    store = http.app.store
    run, me = await run_with_failures(store), await process(store)
    for at in range(100):
        await store.readings.note(run.id, Reading(float(at), me, completed=at))
    path = f"/api/runs/{run.id}/readings"
    assert len((await get(http, path, most=10))["readings"]) <= 12
    assert [reading["at"] for reading in (await get(http, path, after=97))["readings"]] == [98.0, 99.0]


async def test_queue_schedules_endpoints_costs_and_report_are_those_of_the_commands(http: Inside) -> None:
    store = http.app.store
    await run_with_failures(store)
    await store.queue.submit(Submission("later", {}, ["here"], due_at=time.time() + 3600.0))
    (queued,) = (await get(http, "/api/queue"))["queue"]
    assert (queued["job"], queued["endpoints"], queued["stands"][:4]) == ("later", ["here"], "due ")
    assert await get(http, "/api/schedules") == {"served": False, "schedules": [], "broken": []}
    assert await get(http, "/api/endpoints") == {"endpoints": [], "receipts": [], "owed": []}
    assert await get(http, "/api/costs", by="day", days=7) == {"by": "day", "costs": []}
    assert [run["job"] for run in (await get(http, "/api/report", since="1d"))["runs"]] == ["talk"]
    assert len((await get(http, "/api/report", run="talk"))["runs"]) == 1


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/runs/99", 404),
        ("/api/runs/nobody/items", 404),
        ("/api/runs/talk/items/nobody", 404),
        ("/api/runs/talk/items?like=nobody", 400),
        ("/api/runs?limit=0", 400),
        ("/api/runs?limit=1&limit=2", 400),
        ("/api/runs?unknown=1", 400),
        ("/api/report?since=tomorrow", 400),
        ("/api/report?since=today&run=talk", 400),
        ("/api/unknown", 404),
    ],
)
async def test_what_cannot_be_shown_is_one_line(http: Inside, path: str, status: int) -> None:
    await run_with_failures(http.app.store)
    async with http.client.get(path) as response:
        assert response.status == status
        error = (await response.json())["error"]
    assert error.keys() == {"message", "code"}
    assert "\n" not in error["message"]


# -- acting ------------------------------------------------------------------------------------------------------------


async def test_a_run_is_held_tuned_released_and_cancelled(http: Inside) -> None:
    store = http.app.store
    run = await run_with_failures(store, state=RunState.STOPPED)
    path = f"/api/runs/{run.id}"
    status, held = await post(http, f"{path}/hold")
    assert (status, held["run"], held["state"]) == (200, run.id, "held")
    assert (await post(http, f"{path}/tune", {"concurrency": 3}))[0] == 200
    assert await store.runs.controls(run.id) == (RunState.STOPPED, True, 3)
    assert (await post(http, f"{path}/tune", {"concurrency": None}))[0] == 200
    assert (await post(http, f"{path}/go"))[1]["state"] == "stopped"
    assert await store.runs.controls(run.id) == (RunState.STOPPED, False, None)
    assert (await post(http, f"{path}/cancel"))[1]["state"] == "cancelled"
    status, failed = await post(http, f"{path}/hold")
    assert (status, failed["error"]["code"]) == (409, "conflict")
    assert "has ended: it is cancelled" in failed["error"]["message"]


async def test_the_items_of_one_cause_are_queued_to_be_asked_again(http: Inside) -> None:
    run = await run_with_failures(http.app.store)
    status, retried = await post(http, f"/api/runs/{run.id}/retry", {"like": "busy"})
    assert (status, retried) == (200, {"run": run.id, "job": "talk", "items": 1, "served": False})
    (queued,) = (await get(http, "/api/queue"))["queue"]
    assert queued["id"] == run.id
    assert (await post(http, f"/api/runs/{run.id}/prioritize", {"priority": 7}))[0] == 200
    assert (await get(http, "/api/queue"))["queue"][0]["priority"] == 7
    assert (await post(http, f"/api/runs/{run.id}/retry"))[1]["items"] == len(FAILURES)


async def test_a_run_that_is_not_queued_has_no_priority(http: Inside) -> None:
    run = await run_with_failures(http.app.store)
    status, failed = await post(http, f"/api/runs/{run.id}/prioritize", {"priority": 1})
    assert (status, "not in the queue" in failed["error"]["message"]) == (409, True)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "give either jobfile or spec"),
        ({"jobfile": "a.py", "spec": {}}, "give either jobfile or spec"),
        ({"jobfile": "../../etc/passwd"}, "is not a job file in a folder of [serve] jobs"),
        ({"spec": {"name": "x", "parse": {"python": {"file": "x.py", "name": "f"}}}}, "may not refer to Python"),
        ({"spec": {"name": "x"}}, "source"),
        ({"spec": {}, "at": "whenever"}, "whenever"),
        ({"spec": {}, "priority": 2**63}, "priority"),
    ],
)
async def test_a_submission_that_cannot_be_queued_is_one_line(http: Inside, body: object, words: str) -> None:
    status, failed = await post(http, "/api/submit", body)
    assert status == 400
    assert words in failed["error"]["message"]
    assert "\n" not in failed["error"]["message"]


async def test_an_action_takes_json_and_nothing_else(http: Inside) -> None:
    run = await run_with_failures(http.app.store)
    path = f"/api/runs/{run.id}/retry"
    async with http.client.post(path, data={"like": "busy"}) as response:
        assert response.status == 415
    async with http.client.post(path, data=b"{", headers={"Content-Type": "application/json"}) as response:
        assert response.status == 400
    async with http.client.post(path, params={"like": "busy"}) as response:
        assert response.status == 400
    async with http.client.get(path) as response:
        assert (response.status, response.headers["Allow"]) == (405, "POST")
    assert (await get(http, "/api/queue"))["queue"] == []


async def test_a_schedule_that_is_not_there_cannot_be_paused(http: Inside) -> None:
    for verb in ("pause", "resume"):
        status, failed = await post(http, f"/api/schedules/nobody/{verb}")
        assert (status, "nobody" in failed["error"]["message"]) == (404, True)


# -- roles -------------------------------------------------------------------------------------------------------------


async def test_each_role_may_do_its_part_and_sees_no_run_of_somebody_elses_batch(
    serve_inside: Callable[..., AbstractAsyncContextManager[Inside]], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"reader": Role.READ, "mine": Role.RUN, "other": Role.RUN}
    for name in names:
        monkeypatch.setenv(f"TOKEN_{name}", f"the-token-of-{name}")
    tokens = {name: ServerToken(role=role, token_env=f"TOKEN_{name}") for name, role in names.items()}
    chosen = Settings(server=Server(tokens=tokens))
    async with serve_inside(chosen) as http:
        store = http.app.store
        plain, batched = await run_with_failures(store), await run_with_failures(store, version="2")
        batch = await store.batches.add(NewBatch("mine", "/v1/chat/completions", "file-1"), reader="mine")
        await store.batches.begin(batch, batched.id, 5, "m")

        async def statuses(name: str) -> dict[str, tuple[int, int]]:
            headers = {"Authorization": f"Bearer the-token-of-{name}"}
            async with ClientSession(http.url, headers=headers) as client:
                found = {}
                for what, run in {"plain": plain, "batched": batched}.items():
                    async with (
                        client.get(f"/api/runs/{run.id}/items") as seen,
                        client.post(f"/api/runs/{run.id}/prioritize", json={"priority": 1}) as done,
                    ):
                        found[what] = (seen.status, done.status)
                return found

        assert await statuses("reader") == {"plain": (200, 403), "batched": (403, 403)}
        assert await statuses("mine") == {"plain": (200, 403), "batched": (200, 409)}
        assert await statuses("other") == {"plain": (200, 403), "batched": (403, 403)}
        headers = {"Authorization": "Bearer the-token-of-mine"}
        async with http.client.post("/api/submit", json={"spec": {}}, headers=headers) as response:
            assert response.status == 403


async def test_what_a_server_said_to_somebody_elses_batch_is_in_no_list(
    serve_inside: Callable[..., AbstractAsyncContextManager[Inside]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN_READER", "the-token-of-reader")
    tokens = {"reader": ServerToken(role=Role.READ, token_env="TOKEN_READER")}
    async with serve_inside(Settings(server=Server(tokens=tokens))) as http:
        store = http.app.store
        holder = await process(store)
        failed = (await store.runs.take(Spec("batched", "1", "1", {}), holder)).id
        await store.runs.ingested(failed, total=0, plan=Plan(), input_sha256="1")
        await store.runs.end(failed, holder, RunState.FAILED, "it quotes a private prompt")
        queued, _ = await store.queue.submit(Submission("batched 2", {}, ["a"], due_at=0.0))
        await store.queue.claim(holder, time.time())
        await store.queue.requeue(Claim(queued, holder), time.time() + 3600, "a private wait", fruitless=False)
        await store.runs.leave(holder)
        for run in (failed, queued):
            batch = await store.batches.add(NewBatch("mine", "/v1/chat/completions", f"file-{run}"), reader="mine")
            await store.batches.begin(batch, run, 5, "m")

        async def read(path: str, token: str) -> str:
            async with http.anybody.get(path, headers={"Authorization": f"Bearer {token}"}) as response:
                assert response.status == 200
                return await response.text()

        for path in ("/api/runs", "/api/queue", "/runs", "/queue", "/"):
            assert "private" not in await read(path, "the-token-of-reader"), path
            assert "private" in await read(path, TOKEN), path


# -- a real daemon -----------------------------------------------------------------------------------------------------


def ask(server: HttpServer, path: str, body: object = None) -> Any:
    """Return the answer of a server in another process; with a body, to a POST."""
    data, headers = None if body is None else orjson.dumps(body), {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{server.url}{path}", data, headers | server.bearer)
    with urllib.request.urlopen(request) as response:
        return orjson.loads(response.read())


def finished(server: HttpServer, run: int) -> bool:
    queued = [one["id"] for one in ask(server, "/api/queue")["queue"]]
    return run not in queued and ask(server, f"/api/runs/{run}")["state"] == "finished"


def test_a_job_file_is_submitted_and_its_discarded_item_asked_again_by_the_daemon(
    start_server: Callable[..., AbstractContextManager[HttpServer]], workplace: Workplace, server: InferenceServer
) -> None:
    workplace.write_rows([{"id": name, "text": name} for name in ("good", "poison")])
    workplace.job(prelude="print('a job file may print')")
    with start_server('[serve]\njobs = ["."]') as http:
        submitted = ask(http, "/api/submit", {"jobfile": str(workplace.folder / "job.py"), "key": "once"})
        assert (submitted["job"], submitted["new"], submitted["served"]) == ("talk", True, True)
        run = submitted["run"]
        until(lambda: finished(http, run))
        (cause,) = ask(http, f"/api/runs/{run}/failures")["failures"]
        assert (cause["items"], cause["sample"]) == (1, "poison")
        assert ask(http, f"/api/runs/{run}/retry", {"like": "poison"})["items"] == 1
        until(lambda: finished(http, run) and server.stats().by_input["poison"] == 2)
        assert server.stats().by_input["good"] == 1
        until(lambda: len(ask(http, f"/api/runs/{run}/items/poison")["attempts"]) == 2)


def test_a_job_as_json_is_submitted(http_server: HttpServer, workplace: Workplace, server: InferenceServer) -> None:
    workplace.write_rows([{"id": "a", "text": "good"}])
    spec = {
        "name": "declared",
        "source": {"kind": "jsonl", "path": str(workplace.rows), "id": "id"},
        "endpoints": [{"kind": "http", "url": server.url}],
    }
    run = ask(http_server, "/api/submit", {"spec": spec, "deadline": "+2h"})["run"]
    until(lambda: finished(http_server, run))
    assert ask(http_server, f"/api/runs/{run}/items/a")["output"] == {"said": answer_to("good"), "pad": ""}


EXCLUDED = [positive_data_acceptance]  # a moment is any text for the document

# -- the document ------------------------------------------------------------------------------------------------------


def test_requests_made_from_the_document_are_answered_as_it_says(http_server: HttpServer, workplace: Workplace) -> None:
    workplace.write_rows([{"id": name, "text": name} for name in ("good", "poison")])
    assert workplace.run("run", workplace.job()).code == 3  # with failures
    document = ask(http_server, "/api/openapi.json")
    operations: list[Any] = list(schemathesis.openapi.from_dict(document).get_all_operations())
    assert len(operations) == len(OPERATIONS)
    for operation in operations:
        for mode in GenerationMode:
            check_operation(operation.ok(), mode, http_server)


def check_operation(operation: Any, mode: GenerationMode, http: HttpServer) -> None:
    """Make a few requests, the same every time, and half of them about the run that there is."""

    @seed(1)
    @settings(
        max_examples=6,
        phases=[Phase.generate],
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), real=booleans())
    def check(case: Any, *, real: bool) -> None:
        if real:
            known = {"run": "1", "item": "poison", "job": "talk"}
            case.path_parameters = {name: known[name] for name in case.path_parameters}
        case.call_and_validate(base_url=http.url, headers=http.bearer, excluded_checks=EXCLUDED)

    check()
