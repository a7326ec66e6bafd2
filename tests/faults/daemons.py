"""Daemons on the ledger of a scene, and jobs for them."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import orjson
import psutil

from orchestrator.domain.queue import Submission
from orchestrator.store import Store
from tests.commands import rows, until
from tests.faults.scene import ITEMS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.commands import Running, Workplace
    from tests.faults.scene import Scene

ENDPOINT = "acme/batch"


@contextmanager
def serving(scene: Scene, *options: str, env: dict[str, str] | None = None) -> Iterator[Running]:
    """Run a daemon that is ready to take runs; it ends with the block, and so do its children."""
    before = scene.workplace.count("process", "serves = 1")
    with scene.workplace.start("serve", *options, env=scene.env | (env or {})) as daemon:
        until(lambda: scene.workplace.count("process", "serves = 1") > before or daemon.process.poll() is not None)
        yield daemon
        daemon.process.terminate()
        daemon.process.wait(120)
    until(lambda: not any(executes(one) for one in scene.workplace.processes()))


def job(scene: Scene, name: str, numbers: range = range(ITEMS), *, options: str = "", **code: str) -> Path:
    """Write a job with its own rows and its own output."""
    folder = scene.workplace.folder
    source = folder / f"{name}.rows"
    scene.workplace.write_rows(rows(numbers))
    scene.workplace.rows.rename(source)
    code.setdefault("sink", f"JsonlSink({str(folder / f'{name}.out')!r}, keep=['id', 'text'])")
    return scene.job(
        f"{name}.py", options=options, name=repr(name), source=f"JsonlSource({str(source)!r}, id='id')", **code
    )


def about(path: Path) -> dict[str, object]:
    """Return what the ledger holds about the run of a job file."""
    return {"jobfile": str(path), "folder": str(path.parent), "overrides": [], "limit": None}


def queue(scene: Scene, path: Path, *, due_at: float = 0.0, endpoint: str = ENDPOINT) -> int:
    """Do what `orchestrator submit` does; return the number of the run."""

    async def submit() -> int:
        async with Store.open(str(scene.workplace.ledger)) as store:
            return (await store.queue.submit(Submission(path.stem, about(path), [endpoint], due_at)))[0]

    return asyncio.run(submit())


def state(scene: Scene, run: int) -> str:
    return str(dict(scene.workplace.query("SELECT id, state FROM run"))[run])


def finished(scene: Scene, *runs: int) -> None:
    until(lambda: all(state(scene, run) == "finished" for run in runs))
    until(lambda: scene.workplace.count("run", "holder IS NOT NULL") == 0)


def all_finished(scene: Scene) -> None:
    """Whether the queue is empty. A run killed while its input was read is superseded by another one."""
    until(lambda: scene.workplace.count("run", "due_at IS NOT NULL OR holder IS NOT NULL") == 0)


def answers(workplace: Workplace, name: str) -> list[Any]:
    lines = (workplace.folder / f"{name}.out").read_bytes().splitlines()
    return [orjson.loads(line)["output"] for line in lines]


def children(daemon: Running) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return [one for one in psutil.Process(daemon.pid).children() if executes(one)]
    return []


def executes(process: psutil.Process) -> bool:
    """Whether a child of a daemon executes a run."""
    with suppress(psutil.Error):
        return "execute" in process.cmdline()
    return False
