"""The pages of runs, items, failures, the queue, endpoints and the report, of real ledgers."""

from __future__ import annotations

import json
import time
from shutil import copy
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from yarl import URL

from orchestrator.config import settings_from
from orchestrator.domain.attempt import Completed, Discarded, RetryLater
from orchestrator.domain.batch import BatchStatus, NewBatch
from orchestrator.domain.batch_lines import BatchError
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.domain.queue import Submission
from orchestrator.domain.run import RunState, Spec
from orchestrator.domain.schedule import Cron
from orchestrator.domain.terms import Terms
from orchestrator.domain.timetable import Declared
from orchestrator.engine.batches.creation import create_batch
from orchestrator.engine.batches.files import receiving
from orchestrator.store.batches import BatchOutcome
from orchestrator.store.items import Settlement
from orchestrator.store.row_classes import NewItem
from tests.failed_runs import run_with_failures
from tests.past import Night, clock_at, live
from tests.server.test_page import Elements

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from orchestrator.domain.attempt import Outcome
    from orchestrator.store import Store
    from tests.server.conftest import Inside

LONG = RequestFailed(FailureKind.REJECTED, "the request has 812 tokens, and 512 is the most", status=400)
BROWSER = {"Accept": "text/html"}
NIGHTLY = Cron("0 2 * * *", "Europe/Paris")  # made here, because it reads the zone's file
BUSY = RequestFailed(FailureKind.UNAVAILABLE, "busy", status=503)
ADDRESSES = (
    "/runs",
    "/runs?job=embed&state=finished",
    "/runs?before=3",
    "/runs/3/failures",
    "/runs/3/items",
    "/runs/3/items?state=discarded",
    "/runs/3/items?like=i5",
    "/runs/3/items/i5",
    "/queue",
    "/endpoints",
    "/endpoints?days=30",
    "/report",
    "/report?hours=168",
)


async def text(http: Inside, address: str, status: int = 200) -> str:
    async with http.client.get(URL(address, encoded=True), headers=BROWSER) as answer:
        assert (answer.status, answer.content_type) == (status, "text/html"), address
        return await answer.text()


async def chatted(store: Store, requests: Mapping[str, object], outcomes: Mapping[str, list[Outcome]]) -> int:
    """Write a run whose items end as given; return its number."""
    process = await store.runs.register(host="elsewhere", pid=1, pid_started=0.0, lease=30.0)
    run = await store.runs.take(Spec("chat", "f", "1", {"jobfile": "jobs/chat.py"}), process)
    rows = [NewItem(name, "1", json.dumps(request), None) for name, request in requests.items()]
    plan = await store.snapshots.ingest(run.id, run.job_id, 0, [rows])
    await store.runs.ingested(run.id, total=len(rows), plan=plan, input_sha256="1")
    (leased,) = await store.items.lease(run.id, process, 1)
    for item in leased.items:
        for outcome in outcomes[item.id]:
            await store.items.settle([Settlement(item, outcome, 0.25)])
            item.attempt += 1
    await store.items.settle([], [leased.lease])
    await store.runs.end(run.id, process, RunState.FINISHED)
    await store.runs.delivered(run.id, process)
    await store.runs.leave(process)
    return run.id


@pytest.fixture
def bad_night(ledger_of_a_bad_night: Path, tmp_path: Path) -> None:
    """Make it the ledger of the server, which starts after this."""
    copy(ledger_of_a_bad_night, tmp_path / "ledger.db")


async def post(http: Inside, address: str, **fields: str) -> tuple[int, str]:
    """Do as a form of the page does, and return the status and where it leads."""
    async with http.client.post(address, data=fields, headers=BROWSER, allow_redirects=False) as answer:
        return answer.status, answer.headers.get("Location", await answer.text())


# -- every page -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("bad_night")
async def test_every_page_is_within_the_policy_and_escapes_what_it_shows(http: Inside) -> None:
    for address in ADDRESSES:
        page = await text(http, address)
        assert "<script>alert" not in page, address
        assert "<b>'label'" not in page, address
        for name, attributes in Elements(page).found:
            assert name != "style", address
            assert "style" not in attributes, address
            assert not [key for key in attributes if key.startswith("on")], address


@pytest.mark.usefixtures("bad_night")
async def test_every_link_of_every_page_leads_to_a_page(http: Inside) -> None:
    found = set()
    for address in ADDRESSES:
        for name, attributes in Elements(await text(http, address)).found:
            if (
                name == "a"
                and (href := attributes["href"])
                and href.startswith("/")
                and not href.startswith("/batches")
            ):
                found.add(href)
    assert len(found) > 20
    for href in sorted(found):
        await text(http, href)


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/runs/77", 404),
        ("/runs/77/failures", 404),
        ("/runs/77/items/a", 404),
        ("/runs/1/items/b", 404),
        ("/nothing", 404),
        ("/runs?before=x", 400),
        ("/runs/1/items?state=odd", 400),
        ("/runs/1/items?after=-5", 400),
    ],
)
async def test_an_address_that_leads_nowhere_says_why(http: Inside, address: str, status: int) -> None:
    await chatted(http.app.store, {"a": "hi"}, {"a": [Completed('"ho"')]})
    assert "data-error" in await text(http, address, status)


async def test_a_browser_whose_user_may_not_do_something_gets_a_page_that_says_so(
    serve_inside: Callable[..., AbstractAsyncContextManager[Inside]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANN", "the-token-of-ann-of-the-tests")
    settings = settings_from({"server": {"tokens": {"ann": {"role": "run", "token_env": "ANN"}}}})
    async with serve_inside(settings) as http:
        await chatted(http.app.store, {"a": "hi"}, {"a": [Discarded(LONG)]})
        headers = {"Authorization": "Bearer the-token-of-ann-of-the-tests", **BROWSER}
        async with http.anybody.post("/runs/1/retry", headers=headers) as answer:
            page = await answer.text()
        assert (answer.status, answer.content_type, "data-error" in page) == (403, "text/html", True)
        async with http.anybody.get("/runs/77", headers=headers) as answer:
            assert "data-error" in await answer.text()


# -- runs -------------------------------------------------------------------------------------------------------------


async def test_runs_are_paged_from_the_newest_to_the_oldest_without_a_gap(http: Inside) -> None:
    for number in range(120):
        await http.app.store.queue.submit(Submission(f"job{number % 3}", {"jobfile": "f.py"}, [], 0.0))
    seen, address = list[int](), "/runs"
    while address:
        links = [attributes for name, attributes in Elements(await text(http, address)).found if name == "a"]
        seen += [int(str(link["href"])[6:]) for link in links if str(link["href"])[6:].isdecimal()]
        address = next((str(link["href"]) for link in links if link.get("rel") == "next"), "")
    assert seen == list(range(120, 0, -1))


@pytest.mark.usefixtures("bad_night")
async def test_runs_are_filtered_by_job_and_by_the_state_that_they_show(http: Inside) -> None:
    page = await text(http, "/runs?job=embed")
    assert page.count("/runs?job=embed") >= 2
    assert "/runs?job=classify" not in page
    assert "HF_TOKEN" in await text(http, "/runs?state=failed")
    await http.app.order("6", held=1)
    assert "/runs/6" in await text(http, "/runs?state=held")
    assert "/runs/6" not in await text(http, "/runs?state=open")


# -- items ------------------------------------------------------------------------------------------------------------


async def test_a_chat_is_shown_as_turns_with_their_roles_and_its_calls(http: Inside) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    request = {
        "model": "m",
        "messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "Oslo?"}],
    }
    answer = {"content": None, "tool_calls": [call]}
    await chatted(http.app.store, {"a": request}, {"a": [Completed(json.dumps(answer))]})
    page = await text(http, "/runs/1/items/a")
    for words in (
        "<b>system</b>",
        "be kind",
        "<b>user</b>",
        "Oslo?",
        "<b>assistant</b>",
        "<code>weather</code>",
        "Oslo",
    ):
        assert words in page


async def test_all_attempts_are_shown_with_cause_status_wait_and_duration(http: Inside) -> None:
    outcomes: list[Outcome] = [RetryLater(8.0, BUSY), Discarded(LONG)]
    await chatted(http.app.store, {"a": "hi"}, {"a": outcomes})
    page = await text(http, "/runs/1/items/a")
    for words in ("unavailable", "503", "8.0 s", "0.250 s", "rejected", "400", "812 tokens", "2 attempts"):
        assert words in page


async def test_answers_are_never_markup_and_only_pixels_become_a_picture(http: Inside) -> None:
    pixel = "data:image/png;base64,iVBORw0KGgo="
    parts = [
        {"type": "image_url", "image_url": {"url": pixel}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/svg+xml;base64,PHN2Zz4="}},
    ]
    request = {"messages": [{"role": "<i>user</i>", "content": parts}]}
    await chatted(http.app.store, {"a": request}, {"a": [Completed('"<script>alert(1)</script>"')]})
    page = await text(http, "/runs/1/items/a")
    assert [attributes["src"] for name, attributes in Elements(page).found if name == "img"] == [pixel]
    assert "<script>alert" not in page
    assert "<i>user" not in page
    assert "https://example.org/a.png" in page


@pytest.mark.parametrize("name", ["a/b", "a b?c#d", ".", "..", "%2e", "Ünïcode ✓", "<b>", "a&b=c"])
async def test_an_item_has_an_address_whatever_its_id_is(http: Inside, name: str) -> None:
    await chatted(http.app.store, {name: "hi"}, {name: [Completed('"the answer"')]})
    links = [attributes["href"] for tag, attributes in Elements(await text(http, "/runs/1/items")).found if tag == "a"]
    (address,) = [link for link in links if link and link.startswith("/runs/1/items")]
    assert "the answer" in await text(http, address)


async def test_a_very_long_text_is_shortened_and_its_length_is_said(http: Inside) -> None:
    await chatted(http.app.store, {"a": "x" * 300_000}, {"a": [Completed('"ho"')]})
    page = await text(http, "/runs/1/items/a")
    assert len(page) < 150_000
    assert "200,000 more characters" in page


# -- failures ---------------------------------------------------------------------------------------------------------


async def test_failures_are_grouped_by_cause_with_a_sample_and_a_retry(http: Inside) -> None:
    other = RequestFailed(FailureKind.REJECTED, "the request has 700 tokens, and 512 is the most", status=400)
    requests = dict.fromkeys("abc", "hi")
    outcomes: dict[str, list[Outcome]] = {"a": [Discarded(LONG)], "b": [Discarded(other)], "c": [Discarded(BUSY)]}
    await chatted(http.app.store, requests, outcomes)
    page = await text(http, "/runs/1/failures")
    assert "2 items: rejected 400" in page
    assert "1 item: unavailable 503" in page
    fields = [attributes for name, attributes in Elements(page).found if name == "input"]
    assert [field["value"] for field in fields if field["name"] == "like"] == ["a", "c"]
    listed = await text(http, "/runs/1/items?like=a")
    assert "/runs/1/items/b" in listed
    assert "/runs/1/items/c" not in listed


async def test_retrying_one_cause_queues_only_its_items(http: Inside) -> None:
    outcomes: dict[str, list[Outcome]] = {"a": [Discarded(LONG)], "b": [Discarded(LONG)], "c": [Discarded(BUSY)]}
    await chatted(http.app.store, dict.fromkeys("abc", "hi"), outcomes)
    assert await post(http, "/runs/1/retry", like="a") == (303, "/runs/1")
    counts = await http.app.store.views.counts(1, 3)
    assert (counts.discarded, counts.unfinished) == (1, 2)
    ((queued,), _) = await http.app.queue()
    assert queued.id == 1


# -- the queue --------------------------------------------------------------------------------------------------------


async def test_the_queue_says_until_when_each_run_waits_and_why(http: Inside) -> None:
    store = http.app.store
    first, _ = await store.queue.submit(Submission("first", {"jobfile": "f.py"}, ["e"], time.time() + 3600))
    await store.queue.submit(Submission("second", {"jobfile": "f.py"}, ["e"], 0.0, after=[(first, False)]))
    page = await text(http, "/queue")
    assert "due 2" in page
    assert 'waits for run <a href="/runs/1">1</a>' in page
    assert "No daemon is running" in page


async def test_runs_in_the_queue_are_held_prioritized_and_cancelled(http: Inside) -> None:
    await http.app.store.queue.submit(Submission("job", {"jobfile": "f.py"}, ["e"], 0.0))
    assert await post(http, "/queue/1/prioritize", priority="-7") == (303, "/queue")
    assert await post(http, "/queue/1/hold") == (303, "/queue")
    ((queued,), _) = await http.app.queue()
    assert (queued.priority, queued.held) == (-7, True)
    assert "Go on" in await text(http, "/queue")
    assert await post(http, "/queue/1/go") == (303, "/queue")
    assert await post(http, "/queue/1/cancel") == (303, "/queue")
    assert await http.app.queue() == ([], False)
    status, page = await post(http, "/queue/1/prioritize", priority="many")
    assert (status, "whole number" in page) == (400, True)


async def test_schedules_are_paused_resumed_and_fired(http: Inside) -> None:
    store = http.app.store
    declared = Declared("a/b", {"jobfile": "f.py"}, ["e"], NIGHTLY)
    await store.schedules.put(declared, "command", time.time())
    page = await text(http, "/queue")
    assert "0 2 * * * Europe/Paris" in page
    at = f"/schedules/{quote('a/b', safe='')}"
    assert await post(http, str(URL(f"{at}/pause", encoded=True))) == (303, "/queue")
    assert "paused (would be" in await text(http, "/queue")
    assert await post(http, f"{at}/resume") == (303, "/queue")
    assert "paused (would be" not in await text(http, "/queue")
    assert await post(http, f"{at}/fire") == (303, "/queue")
    assert [run.job for run in (await http.app.queue())[0]] == ["a/b"]


# -- endpoints and the report -----------------------------------------------------------------------------------------


async def test_the_time_line_says_why_each_endpoint_was_awake_what_it_cost_and_how_it_was_left(http: Inside) -> None:
    with clock_at(time.time()) as clock:
        await live(http.app.store, clock, Night("embed", clock.now - 7200, 2000))
    page = await text(http, "/endpoints")
    for words in ("acme/embed", "run 1</a> of embed", "read as paused at", "by run 1", "cold start 1 min 30 s", "$"):
        assert words in page
    assert 'class="bar awake"' in page
    assert "its pause is owed" not in page


async def test_an_endpoint_that_is_awake_is_not_said_to_be_asleep_as_it_was_before_it_was_woken(http: Inside) -> None:
    windows, terms = http.app.store.windows, Terms("acme/embed", {"kind": "test"}, price_per_hour=1.8)
    process = await http.app.store.runs.register(host="elsewhere", pid=4711, pid_started=0.0, lease=600.0)
    window = await windows.enter(terms, process, None, "embed")
    assert window is not None
    await windows.saw(window, EndpointState.PAUSED, "stopped")
    await windows.owe(window, terms, EndpointState.PAUSED)
    page = await text(http, "/endpoints")
    assert '<span class="badge warn">awake</span>' in page
    assert "read as stopped" not in page
    await windows.saw(window, EndpointState.AWAKE, "running")
    assert "read as running" in await text(http, "/endpoints")


async def test_a_debt_is_said_before_everything_else(http: Inside) -> None:
    with clock_at(time.time()) as clock:
        await live(http.app.store, clock, Night("embed", clock.now - 7200, 2000, settles=100, ends=None))
    page = await text(http, "/endpoints")
    assert "may still be awake" in page
    assert page.index("orchestrator sweep") < page.index("Each time")
    assert 'class="bar trouble"' in page


@pytest.mark.usefixtures("bad_night")
async def test_the_report_is_that_of_the_command_line(http: Inside) -> None:
    page = await text(http, "/report?hours=168")
    report = await http.app.report(since=time.time() - 168 * 3600)
    assert f"{report.totals.asked.completed:,}" in page
    for run in report.runs:
        assert f"Run {run.ran.id} of {run.ran.job}" in page or f'<td class="wide">{run.ran.job}' in page


# -- batches ----------------------------------------------------------------------------------------------------------


async def batch_of_a_file(http: Inside) -> tuple[str, str]:
    """Send a file and make a batch of it; return their ids."""
    async with receiving(http.app.store) as incoming:
        await incoming.write(b'{"custom_id": "a"}\n')
        file = await incoming.keep(owner="admin", filename="<b>in.jsonl", purpose="batch")
    metadata = {"<i>note": "one & two"}
    made = await create_batch(NewBatch("admin", "/v1/chat/completions", file.id, metadata=metadata), http.app.store)
    return made.batch.id, file.id


async def test_batches_are_listed_and_each_shows_its_status_files_and_metadata(http: Inside) -> None:
    assert "There is no batch yet" in await text(http, "/batches")
    batch, file = await batch_of_a_file(http)
    assert f'<a href="/batches/{batch}">' in await text(http, "/batches")
    page = await text(http, f"/batches/{batch}")
    for words in ("validating", "&lt;b&gt;in.jsonl", f"/v1/files/{file}/content", "&lt;i&gt;note", "one &amp; two"):
        assert words in page
    assert "data-error" in await text(http, "/batches/batch_77", status=404)


async def test_the_page_of_a_batchs_run_leads_to_the_batch(http: Inside) -> None:
    made = (await batch_of_a_file(http))[0]
    found = await http.app.store.batches.find(made, None)
    assert found is not None
    run = await run_with_failures(http.app.store)
    other = await run_with_failures(http.app.store, version="2")
    await http.app.store.batches.begin(found.batch, run.id, 5, "m")
    assert f'<a href="/batches/{made}">{made}</a>' in await text(http, f"/runs/{run.id}")
    assert "/batches/batch" not in await text(http, f"/runs/{other.id}")


async def test_errors_of_a_batch_are_shown_with_their_lines(http: Inside) -> None:
    made = (await batch_of_a_file(http))[0]
    found = await http.app.store.batches.find(made, None)
    assert found is not None
    errors = (BatchError("missing_required_parameter", "Missing required parameter: 'url'.", "url", 1),)
    await http.app.store.batches.end(found.batch, BatchStatus.FAILED, BatchOutcome(errors=errors))
    page = await text(http, f"/batches/{made}")
    for words in ("failed", "missing_required_parameter", "Missing required parameter: &#x27;url&#x27;.", "1 error"):
        assert words in page
    assert "line 1: Missing required parameter: &#x27;url&#x27;." in await text(http, "/batches")
    assert "Cancel" not in page
    status, page = await post(http, f"/batches/{made}/cancel")
    assert (status, "Cannot cancel" in page) == (409, True)
    first = await text(http, "/")
    assert f'<a href="/batches/{made}">Batch {made}</a>' in first
    assert "line 1: Missing required parameter: &#x27;url&#x27;." in first


async def test_a_batch_is_cancelled_on_its_page(http: Inside) -> None:
    made, _ = await batch_of_a_file(http)
    assert await post(http, f"/batches/{made}/cancel") == (303, f"/batches/{made}")
    page = await text(http, f"/batches/{made}")
    assert "cancelling" in page or "cancelled" in page


# -- who may see and do what ------------------------------------------------------------------------------------------


async def test_nobody_but_an_admin_changes_runs_and_schedules_of_the_ledger(
    serve_inside: Callable[..., AbstractAsyncContextManager[Inside]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANN", "the-token-of-ann-of-the-tests")
    settings = settings_from({"server": {"tokens": {"ann": {"role": "run", "token_env": "ANN"}}}})
    async with serve_inside(settings) as http:
        await chatted(http.app.store, {"a": "hi"}, {"a": [Discarded(LONG)]})
        made, _ = await batch_of_a_file(http)
        bearer = {"Authorization": "Bearer the-token-of-ann-of-the-tests"}
        for address in ("/runs/1/retry", "/queue/1/hold", "/queue/1/cancel", "/schedules/job/pause"):
            async with http.anybody.post(address, headers=bearer) as answer:
                assert answer.status == 403, address
        async with http.anybody.get(f"/batches/{made}", headers=bearer) as answer:
            assert answer.status == 404
        async with http.anybody.get("/batches", headers=bearer) as answer:
            assert made not in await answer.text()
