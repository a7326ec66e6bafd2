"""What programs poll: remembered for a moment, by user, until this server changes something."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.config import Server, ServerToken, Settings
from orchestrator.domain.batch import NewBatch
from orchestrator.domain.identity import Role
from orchestrator.server import polls

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    import pytest

    from tests.server.conftest import Inside


async def batch_of(http: Inside, owner: str) -> str:
    new = NewBatch(owner=owner, endpoint="/v1/chat/completions", input_file_id="file-none", completion_window="24h")
    return (await http.app.store.batches.add(new, reader=None)).id


async def status(http: Inside, id_: str) -> str:
    async with http.client.get(f"/v1/batches/{id_}") as response:
        assert response.status == 200
        return str((await response.json())["status"])


async def test_a_poll_within_a_moment_reads_nothing_and_a_later_one_reads_again(
    http: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polls, "KEPT", 3600.0)
    batch = await batch_of(http, "admin")
    assert await status(http, batch) == "validating"
    found = await http.app.store.batches.find(batch, None)
    assert found is not None
    await http.app.store.batches.cancel(found.batch)  # as another process does
    assert await status(http, batch) == "validating"
    monkeypatch.setattr(polls, "KEPT", 0.0)
    async with http.client.post("/v1/batches", data=b"nothing that changes anything"):
        pass
    assert await status(http, batch) == "cancelling"
    assert await status(http, batch) == "cancelling"


async def test_an_answer_that_many_polls_get_is_kept_for_longer(http: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(polls, "monotonic", lambda: now)
    batch = await batch_of(http, "admin")
    found = await http.app.store.batches.find(batch, None)
    assert found is not None
    for _ in range(11):
        assert await status(http, batch) == "validating"
    now = polls.KEPT
    assert await status(http, batch) == "validating"  # read again
    await http.app.store.batches.cancel(found.batch)
    now += polls.KEPT_IF_MANY * 0.9
    assert await status(http, batch) == "validating"
    now += polls.KEPT_IF_MANY * 0.2
    assert await status(http, batch) == "cancelling"


async def test_what_this_server_changes_is_seen_by_the_next_poll(http: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polls, "KEPT", 3600.0)
    batch = await batch_of(http, "admin")
    assert await status(http, batch) == "validating"
    async with http.client.post(f"/v1/batches/{batch}/cancel") as response:
        assert response.status == 200
    assert await status(http, batch) == "cancelling"


async def test_another_user_is_not_given_what_one_has_polled(
    serve_inside: Callable[..., AbstractAsyncContextManager[Inside]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polls, "KEPT", 3600.0)
    monkeypatch.setenv("ANNA", "token-of-anna-only")
    settings = Settings(server=Server(tokens={"anna": ServerToken(role=Role.RUN, token_env="ANNA")}))
    async with serve_inside(settings) as http:
        batch = await batch_of(http, "admin")
        assert await status(http, batch) == "validating"
        as_anna = {"Authorization": "Bearer token-of-anna-only"}
        async with http.anybody.get(f"/v1/batches/{batch}", headers=as_anna) as response:
            assert response.status == 404
