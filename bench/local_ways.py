"""Ways to ask a local model, each in a process of its own which loads once and then measures whenever it is told to.

`way(...)` starts `python -m bench.local_ways KIND` with the thread environment set before torch is imported. An order
is a line of JSON on its standard input, the measurement a line on its standard output; it ends when its input does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import orjson
import psutil
from anyio import to_thread

from bench.local_models import NEW_TOKENS, ROOT, folder_of, inputs_of
from orchestrator import Job, Policy
from orchestrator.domain.run import Spec
from orchestrator.endpoints import LocalEndpoint, TransformersServe
from orchestrator.engine.asking.effort import Effort
from orchestrator.engine.asking.fanout import fan_out
from orchestrator.engine.asking.in_flight import InFlight
from orchestrator.engine.asking.leased_items import open_work_queue
from orchestrator.engine.asking.run_controls import RunControls
from orchestrator.engine.asking.work_queue import RunContext
from orchestrator.engine.awake.awake import awake
from orchestrator.engine.awake.reaper import registered
from orchestrator.engine.awake.tenant import Tenant
from orchestrator.engine.progress import Presence, Progress
from orchestrator.engine.run.ingest import ingest
from orchestrator.engine.run.snapshot import Snapshot
from orchestrator.engine.stop import Stop
from orchestrator.sinks import JsonlSink
from orchestrator.sources import IterableSource
from orchestrator.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO, TypeAlias

    from orchestrator.engine.awake.awake import Awake
    from orchestrator.ports import Endpoint

    Answer: TypeAlias = Callable[[list[object], int], list[Any]]

WARM = 32
_AT_ONCE = 8  # requests; a worker of ours takes two of them
_CLOCK = str(ROOT / "bench" / "forward_clock.py")


@dataclass(frozen=True, slots=True)
class Order:
    """Answer the task's inputs, or the first of them, so many at once where the way has such a thing."""

    batch_size: int = 0
    count: int | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """`begun` and `ended`: on the monotonic clock. `cpu`: seconds of it, of all processes of the way together."""

    begun: float
    ended: float
    cpu: float
    answers: list[Any]

    @property
    def rate(self) -> float:
        """Inputs per second."""
        return len(self.answers) / (self.ended - self.begun)

    @property
    def cpu_each(self) -> float:
        """CPU milliseconds for one input."""
        return self.cpu / len(self.answers) * 1000


class Way:
    """A way in its process, from outside."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def loaded(self) -> None:
        """Wait until it is ready to measure."""
        self._line()

    def measure(self, order: Order) -> Measured:
        """Have it measured."""
        assert self._process.stdin is not None
        self._process.stdin.write(orjson.dumps(asdict(order)) + b"\n")
        self._process.stdin.flush()
        return Measured(**orjson.loads(self._line()))

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._process.args!r} ended")
        return line


@contextmanager
def way(kind: str, task: str, device: str, threads: int, **environment: str) -> Iterator[Way]:
    """Start a way; it ends with the block."""
    given = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        **environment,
    }
    command = [sys.executable, "-m", "bench.local_ways", kind, task, device, str(threads)]
    with subprocess.Popen(command, cwd=ROOT, env=given, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield Way(process)
        finally:
            process.communicate()  # closes its input


# -- in the process ----------------------------------------------------------------------------------------------------


def main() -> None:
    """Load, and measure as told."""
    out = os.fdopen(os.dup(1), "wb", 0)
    os.dup2(2, 1)  # what a library prints is no measurement
    kind, task, device, threads = sys.argv[1:]
    if kind in _ENDPOINTS:
        anyio.run(_through_engine, _ENDPOINTS[kind](task, device, int(threads)), task, out)
        return
    answer = _LIBRARIES[kind](task, device)
    answer(inputs_of(task, WARM), 1)
    out.write(b"loaded\n")
    for line in sys.stdin:
        order = Order(**json.loads(line))
        inputs = inputs_of(task, order.count)
        begun, cpu = time.monotonic(), _cpu()
        answers = answer(inputs, order.batch_size)
        out.write(_written(Measured(begun, time.monotonic(), _cpu() - cpu, answers)))


def _cpu() -> float:
    """Seconds that this process and those that it has started have computed so far."""
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


def _written(measured: Measured) -> bytes:
    return orjson.dumps(asdict(measured), option=orjson.OPT_SERIALIZE_NUMPY) + b"\n"


def _pipeline(task: str, device: str) -> Answer:
    from transformers import pipeline

    made = pipeline(task, model=folder_of(task), device=device)
    if task == "feature-extraction":
        # tensors: lists of every token's vector would cost far more than the model
        return lambda some, size: [
            answer[0].mean(0).tolist() for answer in made(some, batch_size=size, return_tensors=True)
        ]
    if task == "text-generation":
        settings = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "return_full_text": False}
        return lambda some, size: [answer[0]["generated_text"] for answer in made(some, batch_size=size, **settings)]
    return lambda some, size: [answer["label"] for answer in made(some, batch_size=size)]


def _encode(task: str, device: str) -> Answer:
    from sentence_transformers import SentenceTransformer

    made = SentenceTransformer(folder_of(task), device=device)
    return lambda some, size: list(made.encode(some, batch_size=size))


_LIBRARIES = {"pipeline": _pipeline, "encode": _encode}


def _local(task: str, device: str, threads: int) -> LocalEndpoint:
    generates = {"max_new_tokens": NEW_TOKENS, "return_full_text": False} if task == "text-generation" else {}
    clock = [_CLOCK] if "BENCH_CLOCK" in os.environ else []
    return LocalEndpoint(folder_of(task), task, device=device, threads=threads, parameters=generates, imports=clock)


def _serve(task: str, device: str, _threads: int, *options: str) -> TransformersServe:
    settings = {"max_tokens": NEW_TOKENS, "temperature": 0}
    return TransformersServe(folder_of(task), arguments=["--device", device, *options], parameters=settings)


def _serve_batching(task: str, device: str, threads: int) -> TransformersServe:
    return _serve(task, device, threads, "--continuous-batching")


_ENDPOINTS: dict[str, Callable[[str, str, int], Endpoint]] = {
    "ours": _local,
    "serve": _serve,
    "serve, batching": _serve_batching,
}


async def _through_engine(endpoint: Endpoint, task: str, out: BinaryIO) -> None:
    """Everything on: the answers are in a ledger, committed, when the clock stops."""
    with tempfile.TemporaryDirectory() as folder:
        async with (
            Store.open(f"{folder}/awake.db") as store,
            registered(store) as process_id,
            awake(endpoint, Tenant(store, process_id, Progress(), nullcontext, None, "bench")) as lent,
        ):
            await _measured(endpoint, lent, task, Order(count=WARM), f"{folder}/warm.db")
            await to_thread.run_sync(out.write, b"loaded\n")
            number = 0
            while line := await to_thread.run_sync(sys.stdin.readline):
                number += 1  # a new ledger each time: an old one knows the answers
                measured = await _measured(endpoint, lent, task, Order(**json.loads(line)), f"{folder}/{number}.db")
                await to_thread.run_sync(out.write, _written(measured))


async def _measured(endpoint: Endpoint, lent: Awake, task: str, order: Order, ledger: str) -> Measured:
    rows = [{"id": str(number), "input": one} for number, one in enumerate(inputs_of(task, order.count))]
    source, sink = IterableSource(lambda: rows, id="id"), JsonlSink(Path(f"{ledger}.jsonl"))
    policy = Policy(concurrency=_AT_ONCE, batch_size=order.batch_size or None)
    job = Job("bench", source, endpoint, sink, request=lambda row: row["input"], policy=policy)
    progress, presence, stop = Progress(), Presence("bench"), Stop()
    async with Store.open(ledger) as store, registered(store) as process_id:
        run = await store.runs.take(Spec("bench", "f", None), process_id)
        await ingest(Snapshot(job, {}, None), run, store, progress)
        work = RunContext(store, run.id, process_id, None, policy, progress, stop)
        async with lent.connect(policy) as model:
            begun, cpu = time.monotonic(), _cpu()
            async with open_work_queue(work) as queue:
                await fan_out(queue, model, Effort(presence, RunControls(), stop), InFlight())
            ended, cpu = time.monotonic(), _cpu() - cpu
        outputs = [orjson.loads(item.output or "null") async for page in store.views.pages(run.id) for item in page]
    return Measured(begun, ended, cpu, [_plain(output) for output in outputs])


def _plain(output: Any) -> object:
    """As the libraries have it: the label alone, the text alone."""
    while isinstance(output, list) and len(output) == 1:
        output = output[0]
    return output.get("label", output.get("generated_text")) if isinstance(output, dict) else output


if __name__ == "__main__":
    main()
