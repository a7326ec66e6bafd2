"""A real browser for tests: Chromium, which Debian's package installs, driven by Playwright."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from shutil import which
from typing import TYPE_CHECKING, Literal

import pytest
from anyio import fail_after, sleep, to_thread
from playwright.async_api import async_playwright

from tests.commands import DEADLINE, POLL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, BrowserContext, Page

    from tests.server.conftest import HttpServer

CHROMIUM = which("chromium")
# Marks of a module whose tests use the fixture `chromium`, which belongs to an event loop of the whole session.
in_chromium = [
    pytest.mark.skipif(
        CHROMIUM is None and not os.environ.get("CI"), reason="there is no chromium: `apt-get install chromium`"
    ),
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.slow,
    pytest.mark.unmeasured,
]
# Notes layout shifts that no input caused, long before the page has anything to shift.
_SHIFTS = """
window.shifts = [];
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifts.push(entry.value);
}).observe({ type: "layout-shift", buffered: true });
"""
# A tab that is not in front is hidden. Headless browsers have no front, so the page is told.
_HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  Object.defineProperty(document, "visibilityState", { configurable: true, get: () => hidden ? "hidden" : "visible" });
  document.dispatchEvent(new Event("visibilitychange"));
}"""
_AXE = files("axe_playwright_python").joinpath("axe.min.js")
# Runs axe-core, and returns each violation as text. Of rows that are made alike, the first three are looked at: what
# contrasts take grows with the square of the elements.
_VIOLATIONS = """async (options) => {
  const shape = (row) => [row, ...row.querySelectorAll("*")].map((one) => one.tagName + one.className).join();
  const seen = {};
  const alike = [...document.querySelectorAll("tbody tr")].filter((row) => {
    seen[shape(row)] = (seen[shape(row)] ?? 0) + 1;
    return seen[shape(row)] > 3;
  });
  const found = await axe.run({ exclude: alike }, { resultTypes: ["violations"], ...options });
  return found.violations.flatMap((one) => one.nodes.map((node) => `${one.id}: ${node.html}`));
}"""
_OF_COLOURS = {"runOnly": ["color-contrast", "link-in-text-block"]}
_NOT_OF_COLOURS = {"rules": {rule: {"enabled": False} for rule in _OF_COLOURS["runOnly"]}}
NARROW, WIDE = 360, 1200
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


@dataclass
class Tab:
    """A page in the browser, and everything that it complained about."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    async def until(self, expression: str) -> None:
        """Wait until an expression of JavaScript is true. The page's policy lets nothing but Playwright evaluate it.

        To wait until the browser leaves the page, use `page.wait_for_url`: what is evaluated meanwhile may never end.
        """
        with fail_after(DEADLINE):
            while not await self.page.evaluate(expression):
                await sleep(POLL)

    async def shift(self) -> float:
        """Return how far things have jumped that no input of the user moved: the sum of all layout shifts."""
        return float(await self.page.evaluate("window.shifts.reduce((sum, one) => sum + one, 0)"))

    async def hide(self, *, hidden: bool) -> None:
        await self.page.evaluate(_HIDE, hidden)

    async def shortcomings(self) -> list[str]:
        """Return what axe-core finds wrong with the page on any screen, and where it can be scrolled sideways."""
        found = list[str]()
        await self.page.evaluate(await to_thread.run_sync(_AXE.read_text))
        for width in (NARROW, WIDE):
            await self.page.set_viewport_size({"width": width, "height": 900})
            for scheme in SCHEMES:
                await self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # colours change at once
                found += [f"{width}, {scheme}: {one}" for one in await self.page.evaluate(_VIOLATIONS, _OF_COLOURS)]
            found += [f"{width}: {one}" for one in await self.page.evaluate(_VIOLATIONS, _NOT_OF_COLOURS)]
            if await self.page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                found.append(f"{width}: wider than its window")
        return found


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """Start Chromium. It calls nobody but the addresses that it is told to open."""
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        try:
            yield chromium
        finally:
            await chromium.close()


@asynccontextmanager
async def signed_in(chromium: Browser, server: HttpServer, *, width: int = WIDE) -> AsyncIterator[BrowserContext]:
    """Yield a browser of its own, which has opened the server's page with its token."""
    context = await chromium.new_context(viewport={"width": width, "height": 900})
    context.set_default_timeout(DEADLINE * 1000)
    try:
        await context.add_init_script(_SHIFTS)
        page = await context.new_page()
        await page.goto(f"{server.url}/?token={server.token}")
        await page.close()
        yield context
    finally:
        await context.close()


async def opened(context: BrowserContext, url: str) -> Tab:
    """Open an address in a new tab."""
    page = await context.new_page()
    tab = Tab(page)
    page.on("console", lambda message: tab.complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: tab.complaints.append(str(error)))
    page.on("requestfailed", lambda request: _failed(tab, request.url, request.failure))
    await page.goto(url)
    return tab


def _failed(tab: Tab, url: str, why: str | None) -> None:
    if why != "net::ERR_ABORTED":  # a stream that the page closed itself
        tab.complaints.append(f"{url}: {why}")
