"""Workers on a real Ray cluster of three nodes, in whole runs: processes and nodes die, and nodes are added."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import orjson
import psutil
import pytest

from orchestrator import Job, Policy
from orchestrator.domain.endpoint import EndpointState
from orchestrator.endpoints import LocalEndpoint, RayEndpoint
from orchestrator.engine.progress import Progress
from orchestrator.engine.run.run_job import run_job
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.engine.stop import Stop
from orchestrator.sinks import JsonlSink
from orchestrator.sources import IterableSource
from tests.commands import DEADLINE, until
from tests.endpoints.test_local_server import PROGRAM
from tests.handlers import handler
from tests.ray_cluster import ENVIRONMENT, Nodes, answering
from tests.real import small_bert
from tests.real.packages import folder_of
from tests.unguarded import UNGUARDED

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.store import Store
    from tests.commands import Workplace

pytestmark = [
    pytest.mark.slow,
    pytest.mark.unmeasured,
    pytest.mark.timeout(900),
]  # another cluster may have to end first

ITEMS = 2000
IN_FLIGHT = 2  # requests of one worker: one is computed, another waits
BERT = Path(small_bert.__file__).read_text(encoding="utf-8")
CALL = """
import os, time
with open(os.path.join(self.folder, "asked"), "a") as asked:
    asked.write(f"{os.getpid()} {data['inputs']}\\n")
while os.path.exists(os.path.join(self.folder, "hold")):
    time.sleep(0.01)
return int(self.bert.vector(data["inputs"]).argmax())
"""


def weights() -> str:
    return str(folder_of("cognition") / "model")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a small real model that can be held up, and that records what it is asked."""
    start = f"import os; self.folder = os.path.dirname(path); self.bert = SmallBert({weights()!r})"
    return handler(tmp_path / "model", CALL, top=BERT, start=start)


def asked(model: Path) -> Counter[str]:
    """Return how often the model was asked each text."""
    lines = (model.parent / "asked").read_text().splitlines() if (model.parent / "asked").exists() else []
    return Counter(line.partition(" ")[2] for line in lines)


def askers(model: Path) -> set[str]:
    """Return the processes that were asked anything."""
    return {line.partition(" ")[0] for line in (model.parent / "asked").read_text().splitlines()}


class Scene:
    """A run of 2,000 items in this process."""

    def __init__(self, store: Store, nodes: Nodes, model: Path, workers: int | tuple[int, int]) -> None:
        self.model = model
        self.store = store
        self.progress = Progress()
        self.texts = [f"text of {number}" for number in range(ITEMS)]
        endpoint = RayEndpoint(LocalEndpoint(str(model)), workers, address=nodes.address)
        source = IterableSource([{"id": text, "text": text} for text in self.texts], id="id")
        sink = JsonlSink(model.parent / "out.jsonl", keep=["text"])
        self.job = Job("ray", source, endpoint, sink, policy=Policy(concurrency=32, max_attempts=1))

    async def run(self) -> None:
        await run_job(RunRequest(self.job), self.store, self.progress, Stop(), UNGUARDED)

    async def until(self, happened: Callable[[], object]) -> None:
        with anyio.move_on_after(40.0):
            while not await anyio.to_thread.run_sync(happened):
                await anyio.sleep(0.02)
            return
        raise AssertionError([(one.name, one.phase, one.status_text, one.note) for one in self.progress.servers])

    @property
    def at_work(self) -> int:
        return sum(str(member.phase) == "asking" for member in self.progress.servers)

    async def check(self, losses: int) -> None:
        """Assert that all answers are right, that no item lost an attempt, and how many were asked twice."""
        assert (self.progress.completed, self.progress.discarded, self.progress.retried) == (ITEMS, 0, 0)
        lines = (self.model.parent / "out.jsonl").read_bytes().splitlines()
        assert [row["text"] for row in map(orjson.loads, lines)] == self.texts
        bert = small_bert.SmallBert(weights())
        right = await anyio.to_thread.run_sync(lambda: [int(bert.vector(text).argmax()) for text in self.texts])
        assert [row["output"] for row in map(orjson.loads, lines)] == right
        assert len(set(right)) > 5  # they differ
        twice = sum(count - 1 for count in asked(self.model).values())
        assert twice <= losses * IN_FLIGHT


async def test_a_run_survives_the_loss_of_a_worker_of_its_keeper_and_of_a_node_and_uses_a_node_that_is_added(
    store: Store, nodes: Nodes, model: Path
) -> None:
    scene = await anyio.to_thread.run_sync(Scene, store, nodes, model, (1, 6))
    hold = model.parent / "hold"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scene.run)
        await scene.until(lambda: scene.progress.completed > 100)
        hold.touch()
        await scene.until(lambda: scene.at_work == 4)  # two nodes of two CPUs; the others wait for a place
        assert sum("waiting for a place" in member.status_text for member in scene.progress.servers) == 2
        await scene.until(lambda: len(askers(model)) == 4)

        victim = next(iter((await anyio.to_thread.run_sync(answering, model)).values()))
        victim.kill()  # the worker alone: its place stays, and its next process has another port
        await scene.until(lambda: len(askers(model)) == 5 and scene.at_work == 4)

        keeper = next(iter((await anyio.to_thread.run_sync(answering, model)).values())).parent()
        assert keeper is not None
        keeper.kill()
        await scene.until(lambda: len(askers(model)) == 6 and scene.at_work == 4)

        await anyio.to_thread.run_sync(nodes.kill, 0)
        await scene.until(lambda: scene.at_work == 2)
        added = await anyio.to_thread.run_sync(nodes.add, 4)
        await scene.until(lambda: scene.at_work == 6 and len(askers(model)) == 10)
        hold.unlink()
    await scene.check(losses=1 + 1 + 2)
    assert not await anyio.to_thread.run_sync(answering, model)
    assert added in nodes.room


def test_kill_9_of_a_run_ends_every_worker_server_and_child_of_one_and_the_next_run_asks_only_what_is_left(
    workplace: Workplace, nodes: Nodes, model: Path
) -> None:
    folder = workplace.folder
    options = {"--hold-until": folder / "go", "--begun": folder / "begun", "--children": folder / "children"}
    words = [*PROGRAM, *(str(word) for option in options.items() for word in option)]
    workplace.write_rows([{"id": f"i{number}", "text": f"hold {number}"} for number in range(600)])
    job = workplace.job(
        endpoint=f"[RayEndpoint(LocalEndpoint({str(model)!r}), 2, address={nodes.address!r}), "
        f"RayEndpoint(LocalServer({words!r}, name='small'), address={nodes.address!r})]",
        prelude="from orchestrator.endpoints import LocalServer, RayEndpoint",
        policy="concurrency=3",
    )
    with workplace.start("run", job, env=ENVIRONMENT) as running:
        until(lambda: workplace.count("result") >= 20)
        (model.parent / "hold").touch()
        until((folder / "begun").exists)

        def workers() -> list[Any]:
            found: list[Any] = workplace.run("status", "--json").json["workers"]
            return found

        until(lambda: len(workers()) == 2)
        assert {worker["endpoint"] for worker in workers()} == {"ray:model worker 1", "ray:model worker 2"}
        assert {worker["node"] for worker in workers()} == {"127.0.0.1"}
        assert "ray:model worker 2 on cpu of 127.0.0.1: busy " in workplace.run("status").out
        assert (
            "ray:model worker 2 on 127.0.0.1" in workplace.run("endpoints", "logs", "ray:model", "--replica", "2").out
        )
        assert "loading weights" in workplace.run("endpoints", "logs", "ray:small").out
        children = orjson.loads((folder / "children").read_bytes())
        assert len(children) == 2
        answered = workplace.count("result")
        running.kill()
    until(lambda: not answering(model) and not any(map(psutil.pid_exists, children)) and not workplace.processes())
    (folder / "go").touch()
    (model.parent / "hold").unlink()
    assert workplace.run("run", "--quiet", job, env=ENVIRONMENT).code == 0
    outputs = {row["id"]: row for row in workplace.outputs()}
    assert len(outputs) == 600
    twice = [text for text, count in asked(model).items() if count > 1]
    assert len(twice) <= 2 * IN_FLIGHT
    assert answered >= 20


async def test_a_worker_that_no_node_can_hold_fails_with_what_the_cluster_has(nodes: Nodes, model: Path) -> None:
    large = partial(RayEndpoint, gpus=8, address=nodes.address)
    endpoint = await anyio.to_thread.run_sync(lambda: large(LocalEndpoint(str(model))))
    async with endpoint.control() as control:
        await control.resume()
        with anyio.fail_after(DEADLINE):
            while await control.state() is EndpointState.STARTING:
                await anyio.sleep(0.02)
        assert await control.state() is EndpointState.FAILED
        why = "a worker of 1 CPU, 8 GPU cannot be placed: the cluster has no node with room for one, as it has "
        assert control.status_text.startswith(why)
