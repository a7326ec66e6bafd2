"""Validation of several new batches: side by side, and a failure of one concerns no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from orchestrator.app import batch_duties
from orchestrator.app.batch_duties import Validations
from orchestrator.app.latest_settings import LatestSettings
from orchestrator.config import Settings
from orchestrator.domain.batch import BatchStatus, NewBatch
from orchestrator.domain.errors import OrchestratorError
from orchestrator.engine.batches.files import receiving
from orchestrator.engine.tasks import task_group

if TYPE_CHECKING:
    import pytest

    from orchestrator.domain.batch_lines import Validated
    from orchestrator.store import Store

SERVED = {"here": {"kind": "http", "url": "http://127.0.0.1:9/", "models": ["m"]}}
SMALL = (
    b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[{"role":"user"}]}}'
)
LARGE = SMALL + b" " * batch_duties._SMALL


async def created(store: Store, content: bytes) -> str:
    async with receiving(store) as incoming:
        await incoming.write(content)
        file = await incoming.keep(owner="o", filename="a.jsonl", purpose="batch")
    return (await store.batches.add(NewBatch("o", "/v1/chat/completions", file.id), reader=None)).id


async def status(store: Store, id_: str) -> BatchStatus:
    found = await store.batches.find(id_, None)
    assert found is not None
    return found.status


async def test_a_small_batch_does_not_wait_for_the_validation_of_a_large_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, released = anyio.Event(), anyio.Event()

    async def slowly(*_: object) -> Validated:
        begun.set()
        await released.wait()
        raise OrchestratorError("its process was killed")

    monkeypatch.setattr(batch_duties, "validated_by_child", slowly)
    validations = Validations(store, LatestSettings(Settings(endpoints=SERVED), print))
    large, failures = await created(store, LARGE), list[Exception]()

    async def begin() -> None:
        try:
            await validations.begin(0.0)
        except OrchestratorError as failure:
            failures.append(failure)

    async with task_group() as tasks:
        tasks.start_soon(begin)
        await begun.wait()
        small = await created(store, SMALL)
        while await status(store, small) is BatchStatus.VALIDATING:
            await anyio.sleep(0.01)
        assert await status(store, large) is BatchStatus.VALIDATING
        released.set()
    assert await status(store, small) is BatchStatus.IN_PROGRESS
    assert await status(store, large) is BatchStatus.VALIDATING  # it is tried again
    assert [str(failure) for failure in failures] == ["its process was killed"]


async def test_a_batch_whose_stored_file_is_damaged_fails_and_says_so(store: Store) -> None:
    batch = await created(store, SMALL)
    found = await store.batches.find(batch, None)
    assert found is not None
    assert found.batch.input_sha256 is not None
    path = store.files.blobs.path(found.batch.input_sha256)
    await to_thread.run_sync(path.write_bytes, SMALL.replace(b'"a"', b'"b"'))
    await Validations(store, LatestSettings(Settings(endpoints=SERVED), print)).begin(0.0)
    found = await store.batches.find(batch, None)
    assert found is not None
    assert found.status is BatchStatus.FAILED
    assert "is damaged" in found.batch.errors[0].message
