"""Batches over the ledger of a workplace, whose daemon executes them at the inference server of tests."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import orjson

from orchestrator.app import App, open_app
from orchestrator.config import Settings
from orchestrator.domain.batch import BATCH_INPUT, BatchStatus, NewBatch
from orchestrator.engine.batches.creation import cancel_batch, create_batch
from orchestrator.engine.batches.files import receiving
from tests.commands import until
from tests.servers import answer_to

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from pathlib import Path
    from typing import TypeVar

    from orchestrator.domain.batch import Batch, BatchProgress
    from tests.commands import Running, Workplace

    T = TypeVar("T")

ROUTE = "/v1/chat/completions"
OWNER = "ann"
ENDED = {BatchStatus.COMPLETED, BatchStatus.FAILED, BatchStatus.EXPIRED, BatchStatus.CANCELLED}


class BatchScene:
    """A workplace whose settings name an endpoint that serves the model `m`."""

    def __init__(self, workplace: Workplace) -> None:
        self.workplace = workplace
        self.config = workplace.folder / "config.toml"
        self.config.write_text(f'[endpoints.chat]\nkind = "http"\nurl = "{workplace.url}"\nmodels = ["m"]\n')
        workplace.make_ledger()

    @contextmanager
    def serving(self, **env: str) -> Iterator[Running]:
        """Run a daemon that takes runs and batches; it ends with the block."""
        with self.workplace.start("--config", self.config, "serve", env=env) as daemon:
            yield daemon
            daemon.process.terminate()
            daemon.process.wait(120)

    def with_app(self, do: Callable[[App], Awaitable[T]]) -> T:
        """Do something with the application in this process."""

        async def done() -> T:
            async with open_app(Settings(db=str(self.workplace.ledger))) as app:
                return await do(app)

        return asyncio.run(done())

    def create(self, texts: Sequence[str], window: str = "24h", **metadata: str) -> Batch:
        """Send a file with a chat for each text, and create its batch."""
        return self.create_from(
            b"".join(line(f"c{number}", text) for number, text in enumerate(texts)), window, metadata
        )

    def create_from(self, content: bytes, window: str = "24h", metadata: dict[str, str] | None = None) -> Batch:
        async def create(app: App) -> Batch:
            async with receiving(app.store) as incoming:
                await incoming.write(content)
                file = await incoming.keep(owner=OWNER, filename="in.jsonl", purpose=BATCH_INPUT)
            return (await create_batch(NewBatch(OWNER, ROUTE, file.id, window, metadata), app.store)).batch

        return self.with_app(create)

    def now(self, batch: Batch) -> BatchProgress:
        found = self.with_app(lambda app: app.store.batches.find(batch.id, OWNER))
        assert found is not None
        return found

    def cancel(self, batch: Batch) -> None:
        self.with_app(lambda app: cancel_batch(batch.id, OWNER, app.store))

    def ended(self, batch: Batch) -> BatchProgress:
        """Return the batch once it has ended."""
        until(lambda: self.workplace.count("batch", f"id = '{batch.id}' AND ended_at IS NOT NULL"))
        return self.now(batch)

    def lines(self, file_id: str | None) -> list[Any]:
        """Return the content of a file."""

        async def read(app: App) -> list[Any]:
            assert file_id is not None
            file = await app.store.files.find(file_id, OWNER)
            assert file is not None
            path = app.store.files.blobs.path(file.sha256)
            return [orjson.loads(line) for line in (await asyncio.to_thread(path.read_bytes)).splitlines()]

        return self.with_app(read)

    def answers(self, progress: BatchProgress) -> dict[str, str]:
        """Return the answers in the output file, by `custom_id`."""
        return {
            line["custom_id"]: line["response"]["body"]["choices"][0]["message"]["content"]
            for line in self.lines(progress.batch.output_file_id)
        }

    def python(self, script: Path, env: dict[str, str]) -> int:
        """Run a script with the ledger as its argument; return its exit code."""
        command = [sys.executable, str(script), str(self.workplace.ledger)]
        return subprocess.run(command, env=self.workplace.environment() | env, check=False).returncode

    def contents(self) -> list[str]:
        return sorted(path.name for path in (self.workplace.folder / "ledger.db.files").iterdir())


def line(custom_id: str, text: str, **changed: object) -> bytes:
    body = {"model": "m", "messages": [{"role": "user", "content": text}]}
    request = {"custom_id": custom_id, "method": "POST", "url": ROUTE, "body": body}
    return json.dumps(request | changed).encode() + b"\n"


def right(texts: Sequence[str]) -> dict[str, str]:
    """Return the right answers to the chats of `BatchScene.create`."""
    return {f"c{number}": answer_to(text) for number, text in enumerate(texts)}
