"""The page in a real browser, over a real server that executes a real run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from anyio import fail_after, sleep, to_thread

from tests.commands import DEADLINE, POLL, rows, until
from tests.server.browsing import NARROW, Tab, in_chromium, opened, signed_in

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from playwright.async_api import Browser

    from tests.commands import Workplace
    from tests.server.conftest import HttpServer
    from tests.servers import InferenceServer

pytestmark = in_chromium

STATE = "document.querySelector('main .badge').textContent"
SETTLED = "(document.querySelector('progress')?.value ?? 0)"
PLACES = "[...document.querySelectorAll('main h2, main canvas')].map((one) => one.getBoundingClientRect().top)"
_OF_RUN = ("", "/items", "/items?state=completed", "/items/i0", "/failures")
PATHS = (
    "/",
    "/runs",
    *(f"/runs/1{path}" for path in _OF_RUN),
    "/queue",
    "/endpoints",
    "/batches",
    "/report",
    "/runs/99",
)
GOOD = 0.1  # a page's layout is stable if its shifts add up to less: https://web.dev/articles/cls


@pytest.fixture
def execution(http_server: HttpServer, workplace: Workplace, server: InferenceServer) -> HttpServer:
    """Return a server that executes run 1: its first 60 answers have come, and all others are held back."""
    server.behave(hold_after=60)
    workplace.write_rows(rows(range(500)))
    state = workplace.folder / "state"
    state.write_text("paused")
    commands = {
        verb: ["sh", "-c", script.format(state)]
        for verb, script in (("resume", "echo running > {}"), ("state", "cat {}"), ("pause", "echo paused > {}"))
    }
    workplace.job(
        prelude="from orchestrator.endpoints import CommandEndpoint",
        endpoint=f"CommandEndpoint('acme/mini', {server.url!r}, price_per_hour=3.6, look_every=0.2, **{commands!r})",
    )
    workplace.run("submit", "job.py")
    server.wait(lambda stats: stats.requests > 60)
    return http_server


async def test_a_run_is_watched_from_its_first_answers_to_its_end(
    chromium: Browser, execution: HttpServer, server: InferenceServer
) -> None:
    async with signed_in(chromium, execution) as context:
        home, run = await opened(context, f"{execution.url}/"), await opened(context, f"{execution.url}/runs/1")
        for tab in (home, run):
            await tab.until(f"{SETTLED} >= 60 && {SETTLED} < 500")
            await tab.until("document.querySelector('figure canvas') !== null")
            await tab.until("document.getElementById('link').dataset.state === 'live'")
        assert "acme/mini" in await home.page.inner_text("section:has(#awake)")
        assert "$3.60/h\ncost now" in await home.page.inner_text("section:has(#awake)")
        assert await home.page.title() == "1 awake, $3.60/h · orchestrator"
        assert "endpoint_awake endpoint=acme/mini" in await run.page.inner_text(".log")
        await to_thread.run_sync(server.behave)
        await run.until(f"{STATE} === 'finished'")
        await home.until("document.querySelector('section:has(#awake)').textContent.includes('Nothing is awake')")
        assert await run.page.evaluate(SETTLED) == 500
        for tab in (home, run):
            assert await tab.shift() < GOOD
            assert tab.complaints == []


async def test_a_run_is_held_and_goes_on_with_the_keyboard_alone(
    chromium: Browser, execution: HttpServer, server: InferenceServer
) -> None:
    async with signed_in(chromium, execution) as context:
        tab = await opened(context, f"{execution.url}/runs/1")
        await tab.page.keyboard.press("Tab")
        assert await focused(tab) == "Skip to content"
        await tab.page.keyboard.press("Enter")
        assert await tab.page.evaluate("document.activeElement.id") == "main"
        await press(tab, "Hold")
        await tab.until("document.getElementById('ask').open")
        assert await focused(tab) == "No"
        await tab.page.keyboard.press("Enter")
        await tab.until("!document.getElementById('ask').open")
        assert await tab.page.evaluate(STATE) == "running"
        assert await focused(tab) == "Hold"
        await tab.page.keyboard.press("Enter")
        await tab.page.keyboard.press("Tab")
        assert await focused(tab) == "Hold"
        await tab.page.keyboard.press("Enter")
        await tab.until(f"{STATE} === 'held'")
        await tab.until("document.getElementById('notice').textContent === 'Run 1 is held'")
        await to_thread.run_sync(server.behave)
        await press(tab, "Go on")
        await tab.until(f"{STATE} === 'finished'")
        assert tab.complaints == []


async def test_a_tab_that_was_hidden_is_right_as_soon_as_it_is_seen_again(
    chromium: Browser, execution: HttpServer, server: InferenceServer, workplace: Workplace
) -> None:
    async with signed_in(chromium, execution) as context:
        tab = await opened(context, f"{execution.url}/runs/1")
        await tab.until("document.getElementById('link').dataset.state === 'live'")
        await tab.hide(hidden=True)
        asked = list[str]()
        tab.page.on("request", lambda request: asked.append(request.url))
        await to_thread.run_sync(server.behave)
        await to_thread.run_sync(until_finished, workplace)
        assert asked == []
        assert await tab.page.evaluate(STATE) == "running"
        await tab.hide(hidden=False)
        await tab.until(f"{STATE} === 'finished'")
        assert sorted(asked)[:1] == [f"{execution.url}/events"]
        assert tab.complaints == []


async def test_nothing_moves_on_the_page_of_a_queued_run_when_it_begins(
    chromium: Browser,
    workplace: Workplace,
    server: InferenceServer,
    start_server: Callable[..., AbstractContextManager[HttpServer]],
) -> None:
    server.behave(hold_after=60)
    workplace.write_rows(rows(range(500)))
    workplace.job(endpoint=f"HttpEndpoint({server.url!r})")
    await to_thread.run_sync(workplace.run, "submit", "job.py")
    with start_server(command=("ui", "--port", "0", "--no-browser")) as page:
        async with signed_in(chromium, page) as context:
            tab = await opened(context, f"{page.url}/runs/1")
            assert (await tab.page.inner_text("p.why")).startswith("due at ")
            places = await tab.page.evaluate(PLACES)
            with workplace.start("serve"):
                await tab.until(f"{STATE} === 'running' && {SETTLED} >= 60")
                now = await tab.page.evaluate(PLACES)
                moved = [abs(before - after) for before, after in zip(places, now, strict=True)]
                assert max(moved) < 25, moved  # a line of text
                assert await tab.shift() < 0.01
                await to_thread.run_sync(server.behave)
                await tab.until(f"{STATE} === 'finished'")
            assert tab.complaints == []


async def test_a_page_that_may_be_old_says_so_until_it_is_right_again(
    chromium: Browser, http_server: HttpServer
) -> None:
    async with signed_in(chromium, http_server) as context:
        page = await context.new_page()
        await page.clock.install()
        tab, asked = Tab(page), list[str]()
        await page.goto(f"{http_server.url}/runs")
        await tab.until("document.getElementById('link').dataset.state === 'live'")
        await page.route("**/runs", lambda route: route.fulfill(status=503))
        await page.evaluate("window.dispatchEvent(new Event('online'))")
        await tab.until("document.getElementById('link').dataset.state === 'lost'")
        await page.unroute_all()
        await tab.until("document.getElementById('link').dataset.state === 'live'")
        page.on("request", lambda request: asked.append(request.url))
        await page.clock.fast_forward("08:00:00")  # as if the machine had slept: timers are late, and no event tells
        with fail_after(DEADLINE):
            while {f"{http_server.url}/events", f"{http_server.url}/runs"} - set(asked):
                await sleep(POLL)


async def test_everybody_can_read_and_use_the_page_on_any_screen(chromium: Browser, execution: HttpServer) -> None:
    found = list[str]()
    async with signed_in(chromium, execution, width=NARROW) as context:
        for path in PATHS:
            tab = await opened(context, f"{execution.url}{path}")
            found += [f"{path}, {one}" for one in await tab.shortcomings()]
            await tab.page.close()
    assert found == []


async def test_a_server_that_comes_back_is_found_again(
    chromium: Browser, start_server: Callable[..., AbstractContextManager[HttpServer]]
) -> None:
    with start_server() as first:
        async with signed_in(chromium, first) as context:
            tab = await opened(context, f"{first.url}/")
            await tab.until("document.getElementById('link').dataset.state === 'live'")
            first.process.kill()
            await tab.until("document.getElementById('link').dataset.state === 'lost'")
            place = first.url.removeprefix("http://")
            with start_server(command=("serve", "--http", place)):
                await tab.until("document.getElementById('link').dataset.state === 'live'")


async def focused(tab: Tab) -> str:
    return str(await tab.page.evaluate("document.activeElement.textContent"))


async def press(tab: Tab, name: str) -> None:
    """Go on with the tab key until a button has the focus, and press it."""
    await tab.until(f"[...document.querySelectorAll('main button')].some((one) => one.textContent === '{name}')")
    for _ in range(40):
        if await focused(tab) == name:
            break
        await tab.page.keyboard.press("Tab")
    assert await focused(tab) == name
    await tab.page.keyboard.press("Enter")


def until_finished(workplace: Workplace) -> None:
    until(lambda: workplace.count("run", "state = 'finished' AND holder IS NULL AND delivered_at IS NOT NULL"))
