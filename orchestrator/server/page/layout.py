"""The frame of every page: head, navigation, landmarks, and what the script needs. Pages are made of these parts."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from orchestrator.domain.report_words import zone_name
from orchestrator.report.markup import Markup, scrolling, tag
from orchestrator.report.run_section import BADGES
from orchestrator.server.access import csrf_token
from orchestrator.server.ownership import may_act
from orchestrator.server.page.assets import ASSETS

if TYPE_CHECKING:
    from collections.abc import Sequence

NAVIGATION = (
    ("/", "Now"),
    ("/runs", "Runs"),
    ("/queue", "Queue"),
    ("/endpoints", "Endpoints"),
    ("/batches", "Batches"),
    ("/report", "Report"),
)


@dataclass(frozen=True, slots=True)
class Page:
    """A page. `here`: the address of its entry in the navigation. `spoken`: what a screen reader says if it changes.

    `tab`: what the browser's tab says instead of the title. `live`: the page is fetched again when something happens.
    `run`: only what happens to this run matters to it.
    `ticks`: it shows clocks, so it is also fetched again every few seconds if nothing happens.
    """

    title: str
    body: Sequence[Markup]
    here: str | None = None
    spoken: str = ""
    tab: str = ""
    live: bool = True
    run: int | None = None
    ticks: bool = False


def respond(page: Page, status: int = 200) -> web.Response:
    """Return the response with a page."""
    return web.Response(text=document(page), content_type="text/html", status=status)


def document(page: Page) -> str:
    """Return the whole document. It holds neither style nor script of its own, because the policy allows none."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{page.tab or page.title} · orchestrator"),
        tag("link", rel="icon", href=ASSETS.url("icon.svg"), type="image/svg+xml"),
        *(
            tag("link", rel="stylesheet", href=ASSETS.url(name))
            for name in ("report.css", "uPlot.min.css", "page.css", "views.css")
        ),
        *(tag("script", src=ASSETS.url(name), defer="") for name in ("uPlot.iife.min.js", "app.js")),
    )
    main = tag(
        "main",
        tag("h1", page.title),
        *page.body,
        id="main",
        tabindex="-1",
        data_events="/events" if page.live else None,
        data_run=page.run,
        data_zone=time.localtime().tm_gmtoff,
        data_ticks="" if page.ticks else None,
        data_spoken=page.spoken or None,
    )
    footer = tag("footer", f"All clocks are {zone_name(time.time(), None)}.")
    body = tag(
        "body",
        tag("a", "Skip to content", href="#main", class_="skip"),
        _header(page),
        main,
        footer,
        tag("p", id="notice", role="status", hidden=""),
        tag("p", id="spoken", role="status", class_="spoken"),
        _dialog(),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _header(page: Page) -> Markup:
    links = [
        tag("li", tag("a", name, href=address, aria_current="page" if address == page.here else None))
        for address, name in NAVIGATION
    ]
    brand = tag("a", "orchestrator", href="/", class_="brand")
    state = tag("span", "", id="link", data_state="none")
    return tag("header", tag("div", brand, tag("nav", tag("ul", *links), aria_label="Pages"), state))


def _dialog() -> Markup:
    """Return the dialog with which the script asks before an action."""
    no = tag("button", "No", value="no", autofocus="")
    yes = tag("button", "Yes", value="yes")
    form = tag(
        "form",
        tag("h2", "Are you sure?", id="ask-title"),
        tag("p"),
        tag("div", no, yes, class_="actions"),
        method="dialog",
    )
    return tag("dialog", form, id="ask", aria_labelledby="ask-title")


def section(title: str, *parts: str, aside: str = "", more: tuple[str, str] | None = None) -> Markup:
    """Return a section. `aside` is added to its title, `more` is a link: its address and its words."""
    identity = title.lower().replace(" ", "-")
    link = [tag("a", more[1], href=more[0])] if more else []
    head = tag("h2", tag("span", title, id=identity), *([tag("span", aside, class_="soft")] if aside else []), *link)
    return tag("section", head, *parts, aria_labelledby=identity)


def tiles(figures: Sequence[tuple[str, str]]) -> Markup:
    """Return large figures, each with its words."""
    boxes = [tag("div", tag("b", big), tag("span", small), class_="tile") for big, small in figures]
    return tag("div", *boxes, class_="tiles")


def progress(done: int, total: int, words: str) -> Markup:
    """Return a bar. `words`: what is done, to a screen reader, such as "items settled"."""
    return tag("progress", value=done, max=max(1, total), aria_label=f"{done:,} of {total:,} {words}")


def badge(state: str) -> Markup:
    """Return a state, coloured."""
    kind = "live" if state == "running" else BADGES.get(state, "")
    return tag("span", state, class_=f"badge {kind}".rstrip())


def table(heads: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]], label: str) -> Markup:
    """Return a table that scrolls if it is too wide. `heads`: words and class of each column; `n` is for numbers.

    On a phone, each row is a list of its cells, with the words of their columns.
    """
    header = tag("thead", tag("tr", *(tag("th", name, class_=kind or None, scope="col") for name, kind in heads)))
    body = [
        tag(
            "tr",
            *(
                tag("td", cell, class_=kind or None, data_head=head)
                for cell, (head, kind) in zip(row, heads, strict=True)
            ),
        )
        for row in rows
    ]
    return scrolling(label, tag("table", header, tag("tbody", *body), class_="cards"))


def action(
    request: web.Request,
    address: str,
    name: str,
    *fields: Markup,
    ask: str | None = None,
    done: str = "Done",
    danger: bool = False,
) -> Markup:
    """Return a form with one button, which posts to an address. `ask`: the question before. `done`: what is said after.

    Nothing is returned for who may not do it.
    """
    if not may_act(request):
        return Markup("")
    button = tag("button", name, data_ask=ask, data_done=done, class_="danger" if danger else None)
    secret = tag("input", type="hidden", name="csrf", value=csrf_token(request))
    return tag("form", secret, *fields, button, method="post", action=address)


def failure(message: str, status: int) -> web.Response:
    """Return a page that says why there is no other."""
    body = [tag("p", message, data_error="", class_="notice bad")]
    return respond(Page("This did not work", body, live=False), status)
