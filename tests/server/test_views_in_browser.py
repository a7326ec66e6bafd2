"""The pages of a ledger with a bad night in a real browser: accessibility, a phone's width, and actions."""

from __future__ import annotations

from shutil import copy
from typing import TYPE_CHECKING

import pytest

from orchestrator.domain.attempt import Completed, Discarded
from orchestrator.domain.batch import BatchStatus, NewBatch
from orchestrator.domain.batch_lines import BatchError
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.store import Store
from orchestrator.store.batches import BatchOutcome
from tests.server.browsing import NARROW, in_chromium, opened, signed_in
from tests.server.test_views import ADDRESSES, chatted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from playwright.async_api import Browser

    from tests.commands import Workplace
    from tests.server.conftest import HttpServer

pytestmark = in_chromium

REFUSED = Discarded(RequestFailed(FailureKind.REJECTED, "the request has 812 tokens, and 512 is the most", status=400))
RETRY = "section:has-text('timeout') button"
NO_AND_AGAIN = "(button) => { document.getElementById('ask').close(); button.click(); }"


@pytest.fixture
def night(
    ledger_of_a_bad_night: Path, workplace: Workplace, start_server: Callable[..., AbstractContextManager[HttpServer]]
) -> Iterator[HttpServer]:
    """Serve the page alone, so that nothing changes the ledger."""
    copy(ledger_of_a_bad_night, workplace.ledger)
    with start_server(command=("ui", "--port", "0", "--no-browser")) as server:
        yield server


async def test_every_page_is_accessible_and_as_wide_as_its_window(chromium: Browser, night: HttpServer) -> None:
    async with signed_in(chromium, night, width=NARROW) as context:
        for address in ADDRESSES:
            tab = await opened(context, f"{night.url}{address}")
            assert await tab.shortcomings() == [], address
            assert tab.complaints == [], address
            await tab.page.close()


LONG = "a word that is longer than others, " * 30
ERRORS = tuple(BatchError("invalid_json_line", LONG, f"body.{'deep.' * 30}", line) for line in range(1, 40))
CHAT = {
    "messages": [
        {"role": "system", "content": "You answer in one word."},
        {"role": "user", "content": [{"type": "text", "text": LONG + "x" * 500}]},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "look", "arguments": "{}"}}]},
        {"role": "tool", "content": '{"found": 3}'},
    ]
}


async def written(ledger: Path) -> list[str]:
    """Write a chat, a batch that is executed and one that failed; return the addresses of their pages."""
    async with Store.open(str(ledger)) as store:
        run = await chatted(store, {"chat": CHAT, "bad": CHAT}, {"chat": [Completed('"three"')], "bad": [REFUSED]})
        pages = [f"/runs/{run}", f"/runs/{run}/items/chat", f"/runs/{run}/items/bad", "/batches"]
        for file in ("file-1", "file-2"):
            new = NewBatch("admin", "/v1/chat/completions", file, metadata={"note" * 9: "value" * 90})
            batch = await store.batches.add(new, reader=None)
            if file == "file-1":
                await store.batches.begin(batch, run, 2, "acme/a-model-with-a-long-name")
            else:
                await store.batches.end(batch, BatchStatus.FAILED, BatchOutcome(errors=ERRORS))
            pages.append(f"/batches/{batch.id}")
    return pages


async def test_batches_and_chats_are_accessible_and_as_wide_as_their_window(
    chromium: Browser,
    workplace: Workplace,
    start_server: Callable[..., AbstractContextManager[HttpServer]],
) -> None:
    addresses = await written(workplace.ledger)
    with start_server(command=("ui", "--port", "0", "--no-browser")) as server:
        async with signed_in(chromium, server, width=NARROW) as context:
            for address in addresses:
                tab = await opened(context, f"{server.url}{address}")
                assert await tab.shortcomings() == [], address
                assert tab.complaints == [], address
                await tab.page.close()


async def test_items_that_failed_alike_are_retried_after_one_question(chromium: Browser, night: HttpServer) -> None:
    async with signed_in(chromium, night) as context:
        tab = await opened(context, f"{night.url}/runs/3/failures")
        await tab.page.click(RETRY)
        await tab.until("document.getElementById('ask').open")
        await tab.page.eval_on_selector(RETRY, NO_AND_AGAIN)
        await tab.until("document.getElementById('ask').open")
        assert "Ask 2 items of embed again?" in await tab.page.inner_text("#ask")
        await tab.page.click("#ask button[value=yes]")
        await tab.page.wait_for_url(f"{night.url}/runs/3")
        await tab.until("document.querySelector('main .badge').textContent === 'queued'")
        assert tab.complaints == []
