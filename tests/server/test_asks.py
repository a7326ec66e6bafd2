"""What the API and the pages show of a rollout: its transcript, and what was asked by endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.asks import Asked, write_asks, write_totals
from tests.failed_runs import run_with_failures
from tests.server.test_api import get
from tests.server.test_views import text

if TYPE_CHECKING:
    from tests.server.conftest import Inside

BUSY = ["unavailable", 503, "<script>alert(1)</script>", 0.5, 990.0, 995.0]


@pytest.fixture
async def run(http: Inside) -> int:
    store = http.app.store
    run = (await run_with_failures(store)).id
    chat = {"messages": [{"role": "user", "content": "how far is it?"}]}
    await write_asks(store, run, Asked("good 1", 1, chat, step="draft", answer="42 km", tokens=(5, 2), failures=[BUSY]))
    await write_asks(store, run, Asked("good 1", 2, {"name": "look_up"}, endpoint=None, answer={"n": 1}))
    await write_totals(store, run, {("writer", "draft"): (2, 1, 0, 3, 4, 0.5), ("writer", ""): (1, 0, 1, None, 1, 0.5)})
    return run


async def test_the_api_shows_transcripts_and_asks_by_endpoint(http: Inside, run: int) -> None:
    found = await get(http, f"/api/runs/{run}/items/good 1")
    assert [(ask["number"], ask["endpoint"], ask["answer"]) for ask in found["asks"]] == [
        (1, "writer", "42 km"),
        (2, None, {"n": 1}),
    ]
    assert (await get(http, f"/api/runs/{run}/items/busy"))["asks"] == []
    status: dict[str, Any] = await get(http, f"/api/runs/{run}")
    assert status["asks"] == [
        {
            "endpoint": "writer",
            "asks": 3,
            "discarded": 1,
            "retried": 1,
            "tokens_in": 3,
            "tokens_out": 5,
            "seconds": 1.0,
        }
    ]


async def test_the_page_of_an_item_shows_the_first_asks_of_a_long_transcript(http: Inside, run: int) -> None:
    await write_asks(http.app.store, run, *(Asked("good 2", number, "q", answer="a") for number in range(1, 203)))
    page = await text(http, f"/runs/{run}/items/good%202")
    assert "200 of writer: completed" in page
    assert "201 of writer" not in page
    assert "and 2 more, which the command line shows" in page
    assert "202 asks" in page
    assert "some asks have the same number" not in page
    await write_asks(http.app.store, run, Asked("good 2", 7, "another", answer="b"))
    assert "some asks have the same number" in await text(http, f"/runs/{run}/items/good%202")


async def test_pages_show_the_transcript_of_an_item_and_the_asks_of_a_run(http: Inside, run: int) -> None:
    page = await text(http, f"/runs/{run}/items/good%201")
    assert "1 of writer (draft): completed after 0.250 s, attempt 2, 5 tokens in, 2 tokens out" in page
    assert "2, call of a function: completed after 0.250 s" in page
    assert "how far is it?" in page
    assert "42 km" in page
    assert "<script>alert" not in page
    page = await text(http, f"/runs/{run}")
    assert "What was asked" in page
    assert "draft" in page
