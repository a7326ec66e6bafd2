"""The two threads of the worker: one computes while the other prepares the next request. Seen over its real socket."""

from __future__ import annotations

import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import orjson
import pytest
from aiohttp import web

from orchestrator.worker.model import Rejected
from orchestrator.worker.server import WorkerServer
from tests.commands import DEADLINE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from orchestrator.worker.model import Parameters


class Steps:
    """Records events. The model computes until it is released."""

    budget: int | None = None

    def __init__(self) -> None:
        self.happened: list[str] = []
        self.go_on = threading.Semaphore(0)
        self.news = threading.Condition()

    @property
    def info(self) -> Mapping[str, object]:
        return {}

    def prepare(self, requests: Sequence[object], _shared: Parameters, *, tune: bool = False) -> Any:
        if "bad" in requests:
            raise Rejected("nobody takes that")
        self.note(f"{requests[0]} is ready")
        return requests

    def compute(self, work: Any) -> None:
        self.note(f"{work[0]} is begun")
        assert self.go_on.acquire(timeout=DEADLINE)
        self.note(f"{work[0]} is computed")

    def entries(self, work: Any) -> list[bytes]:
        return [orjson.dumps({"output": one}) for one in work]

    def note(self, what: str) -> None:
        with self.news:
            self.happened.append(what)
            self.news.notify_all()

    async def until(self, what: str) -> None:
        await anyio.to_thread.run_sync(self._until, what)

    def _until(self, what: str) -> None:
        with self.news:
            assert self.news.wait_for(lambda: what in self.happened, DEADLINE), self.happened


@asynccontextmanager
async def serving(steps: Steps, folder: Path) -> AsyncIterator[aiohttp.ClientSession]:
    server, path = WorkerServer(), str(folder / "socket")
    server._served = steps
    runner = web.AppRunner(server.application(), handler_cancellation=True)
    await runner.setup()
    await web.UnixSite(runner, path).start()
    try:
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session:
            yield session
    finally:
        await runner.cleanup()


async def ask(session: aiohttp.ClientSession, *inputs: str) -> tuple[int, Any]:
    async with session.post("http://worker/batch", data=orjson.dumps({"inputs": inputs})) as response:
        return response.status, await response.json()


async def test_the_next_request_is_prepared_during_the_current_one_and_no_further(
    tmp_path: Path,
) -> None:
    steps = Steps()
    async with serving(steps, tmp_path) as session, anyio.create_task_group() as clients:
        clients.start_soon(ask, session, "first")
        await steps.until("first is begun")
        clients.start_soon(ask, session, "second")
        await steps.until("second is ready")
        clients.start_soon(ask, session, "third")
        for _ in range(3):  # time enough for a third request to arrive
            assert (await session.get("http://worker/health")).status == 200
        assert steps.happened == ["first is ready", "first is begun", "second is ready"]
        steps.go_on.release()
        await steps.until("third is ready")
        assert steps.happened.index("first is computed") < steps.happened.index("third is ready")
        steps.go_on.release(2)
    assert [what for what in steps.happened if what.endswith("computed")] == [
        "first is computed",
        "second is computed",
        "third is computed",
    ]


async def test_a_request_whose_client_has_gone_is_not_computed(tmp_path: Path) -> None:
    steps = Steps()
    async with serving(steps, tmp_path) as session, anyio.create_task_group() as clients:
        clients.start_soon(ask, session, "first")
        await steps.until("first is begun")
        with anyio.CancelScope() as leaving:
            async with anyio.create_task_group() as leavers:
                leavers.start_soon(ask, session, "second")
                await steps.until("second is ready")
                leaving.cancel()
        clients.start_soon(ask, session, "third")
        await steps.until("third is ready")
        steps.go_on.release(2)
        await steps.until("third is computed")
    assert "second is begun" not in steps.happened


@pytest.mark.parametrize("error", [KeyError("unforeseen"), StopIteration("unforeseen"), SystemExit("unforeseen")])
@pytest.mark.parametrize("step", ["prepare", "compute", "entries"])
async def test_an_unexpected_error_is_reported_with_its_line_and_the_next_request_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    def stumble(*_: object, **__: object) -> None:
        raise error

    steps = Steps()
    steps.go_on.release(2)
    async with serving(steps, tmp_path) as session:
        with monkeypatch.context() as patched, anyio.fail_after(DEADLINE):
            patched.setattr(steps, step, stumble)
            status, said = await ask(session, "odd")
        assert status == 500
        assert said["error"].startswith(f"{type(error).__name__}: ")
        assert "unforeseen" in said["error"]
        assert "(test_server.py, line " in said["error"]
        assert await ask(session, "fine") == (200, {"answers": [{"output": "fine"}]})


async def test_a_refusal_during_preparation_is_the_answer(tmp_path: Path) -> None:
    async with serving(Steps(), tmp_path) as session:
        assert await ask(session, "bad") == (400, {"error": "nobody takes that"})
