"""The pages: what the server renders, and the files that they load."""

from __future__ import annotations

import hashlib
from html.parser import HTMLParser
from importlib.resources import files
from typing import TYPE_CHECKING

from orchestrator import Policy
from orchestrator.domain.errors import FailureKind
from orchestrator.server.page.assets import ASSETS
from tests.engine.scripted import QUICK, Scripted, job_of, run
from tests.past import Night, clock_at, live

if TYPE_CHECKING:
    from pathlib import Path

    from tests.server.conftest import Inside

STATIC = files("orchestrator.server.page.static")


class Elements(HTMLParser):
    """Collects every element of a document."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_what_others_wrote_is_as_they_published_it() -> None:
    listed = [line.split("  ") for line in STATIC.joinpath("vendored.sha256").read_text().splitlines()]
    assert {name for _, name in listed} == {path.name for path in STATIC.iterdir() if path.name.startswith("uPlot")}
    for digest, name in listed:
        assert hashlib.sha256(STATIC.joinpath(name).read_bytes()).hexdigest() == digest


async def test_files_are_kept_for_ever_under_an_address_that_changes_with_them(http: Inside) -> None:
    async with http.client.get(ASSETS.url("app.js")) as answer:
        assert (answer.status, answer.content_type) == (200, "text/javascript")
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    for url in ("/static/0123456789abcdef/app.js", ASSETS.url("secret.js"), ASSETS.url("..%2flayout.py")):
        async with http.client.get(url) as answer:
            assert answer.status == 404
            assert "immutable" not in answer.headers["Cache-Control"]


async def test_the_first_page_says_that_nothing_happens_in_an_empty_ledger(http: Inside) -> None:
    async with http.client.get("/") as answer:
        page = await answer.text()
        assert (answer.status, answer.content_type) == (200, "text/html")
        assert answer.headers["Cache-Control"] == "no-store"
    for words in ("Nothing is awake", "No run is being executed", "No run waits", "Nothing failed"):
        assert words in page


async def test_no_page_needs_more_than_the_policy_allows(http: Inside) -> None:
    async with http.client.get("/") as answer:
        found = Elements(await answer.text()).found
    assert {"main", "nav", "header", "dialog"} <= {name for name, _ in found}
    for name, attributes in found:
        assert name != "style"
        assert "style" not in attributes
        assert not [key for key in attributes if key.startswith("on")]
        if name == "script":
            assert attributes["src"]


async def test_text_of_models_and_users_is_never_markup(http: Inside) -> None:
    night = Night("<b>job</b>", 0.0, 20, ends=None, settles=10)
    with clock_at(1_000_000_000.0) as clock:
        night.begins = clock.now
        await live(http.app.store, clock, night)
    async with http.client.get("/runs/1") as answer:
        page = await answer.text()
    assert "<b>job" not in page
    assert "&lt;b&gt;job&lt;/b&gt;" in page


async def test_a_run_that_is_not_there_is_said_on_a_page(http: Inside) -> None:
    async with http.client.get("/runs/77", headers={"Accept": "text/html"}) as answer:
        assert (answer.status, answer.content_type) == (404, "text/html")
        assert "no run &#x27;77&#x27;" in await answer.text()


async def test_a_run_says_how_long_its_answers_took_and_what_was_not_200(http: Inside, tmp_path: Path) -> None:
    job = job_of(["a", "b"], Scripted(rate_limited=3), tmp_path, Policy(backoff=QUICK))
    report = await run(job, http.app.store)
    async with http.client.get("/runs/1") as answer:
        page = await answer.text()
    assert f"{report.asked} requests; answers took " in page
    assert "(median)" in page
    assert "requests by status: 2 x 200, 3 x 429" in page


async def test_discarded_items_can_be_asked_again_once_the_run_has_ended(http: Inside) -> None:
    with clock_at(1_000_000_000.0) as clock:
        failing = (FailureKind.REJECTED, 422, "too long", ["i3"])
        await live(http.app.store, clock, Night("embed", clock.now, 20, wrong=[failing]))
    async with http.client.get("/runs/1") as answer:
        found = Elements(await answer.text()).found
    (form,) = [one for one in found if one[0] == "form" and one[1]["method"] == "post"]
    assert form[1]["action"] == "/runs/1/retry"
    (button,) = [attributes for name, attributes in found if name == "button" and "data-ask" in attributes]
    assert "1 discarded item " in str(button["data-ask"])
