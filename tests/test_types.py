"""What type checkers see of the package in a user's project: mypy in strict mode, and pyright."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from tests.wheels import build, install

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Checker = Callable[[Path, Path], set[tuple[str, int]]]

pytestmark = pytest.mark.unmeasured

SCRIPT = """
from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, assert_type

from orchestrator import (
    Ask, Backoff, Conversation, Cron, Job, Policy, RequestFailed, Result, RunSummary, Webhook, Weighted, __version__,
    arun, connect, run
)
from orchestrator.endpoints import HttpEndpoint, HuggingFaceEndpoint, LocalEndpoint, Vllm, named
from orchestrator.ports import Source
from orchestrator.sinks import CsvSink, JsonlSink, ParquetSink
from orchestrator.sources import CsvSource, IterableSource, JsonlSource, ParquetSource
from orchestrator.wires import OpenAIChatWire


def label(answer: list[dict[str, Any]]) -> str:
    return str(answer[0]["label"])


job = Job(
    name="labels",
    source=IterableSource([{"id": "a", "text": "good"}], id="id"),
    request={"inputs": "{text}"},
    parse=label,
    endpoint=[
        Weighted(HuggingFaceEndpoint("acme/labels", pause="always"), 2),
        HttpEndpoint("http://127.0.0.1:8000/", wire=OpenAIChatWire("model")),
    ],
    fallback=LocalEndpoint(model="model", task="text-classification"),
    sink=JsonlSink("labels.jsonl", keep=["text"]),
    policy=Policy(concurrency=4, backoff=Backoff(first=0.1)),
    schedule=Cron("30 22 * * *", tz="Europe/Paris"),
    on_failure=Webhook("https://chat.example.com/hook"),
    on_finish=["notify-send", "done"],
)
async def weather(city: str) -> dict[str, float]:
    return {city: 20.0}


async def rollout(row: Mapping[str, str], ask: Ask) -> dict[str, object]:
    votes = [ask.soon({"inputs": row["text"]}, to="judge", step="vote") for _ in range(3)]
    talk = ask.conversation(system="be brief", tools=[weather], temperature=0)
    assert_type(talk, Conversation)
    assert_type(await ask.call(weather, "Paris"), dict[str, float])
    try:
        return {"said": await talk.say("hello", deadline=5), "votes": [await vote for vote in votes]}
    except RequestFailed as failure:
        return {"failed": f"{failure.kind} {failure.status}"}


rolls = Job(
    "rolls",
    JsonlSource("in.jsonl"),
    {"writer": HttpEndpoint("http://a/"), "judge": [Vllm("model"), Weighted(HttpEndpoint("http://b/"), 2)]},
    rollout=rollout,
)
others = [
    Job("chat", JsonlSource("in.jsonl", id="id"), named("acme"), CsvSink("out.csv"), request=lambda row: row["text"]),
    Job("files", ParquetSource("in.parquet"), Vllm("model"), ParquetSink("out.parquet", ["text"])),
]
assert_type(job, Job)
assert_type(job.name, str)
assert_type(job.source, Source)
assert_type(job.policy, Policy)
assert_type(job.policy.max_cost, float | None)
assert_type(CsvSource("in.csv", id="id"), CsvSource)
version: str = __version__


result = run(job, limit=10, reuse=["chat"], overwrite=True, progress=False, ledger="ledger.db")
assert_type(result, Result)
assert_type((result.run_id, result.job, len(result)), tuple[int, str, int])
assert_type((result.counts.completed, result.cost, result.awake), tuple[int, float | None, float])
assert_type([(cause.kind, cause.items) for cause in result.causes], list[tuple[str, int]])
assert_type(result.manifest, Mapping[str, object])
for row in result:
    assert_type(row, dict[str, Any])
assert_type((result[0], result[-10:]), tuple[dict[str, Any], list[dict[str, Any]]])
assert_type(next(iter(result.discarded)), dict[str, Any])
print(result.to_pandas(), result.to_polars(), result.to_dataset())
table: object = result.to_arrow()  # pyright: ignore # pyarrow has no types

with connect(Path("ledger.db")) as app:
    assert_type(app.run(job, limit=1), Result)
    assert_type(app.result("labels"), Result)
    assert_type(app.retry("labels"), Result)
    assert_type(app.plan(job).counts.new, int)
    assert_type(app.plan(job, canary=32).estimate.cost, float | None)
    assert_type(app.bench(job, rate=20, slo=["p95=2s"]).shown.requests_per_second, float)
    assert_type(app.bench("acme/labels", sweep=True, items="job.py").cost, float | None)
    assert_type([(found.job, found.counts.completed) for found in app.runs()], list[tuple[str, int]])
    assert_type([found.started_at for found in app.runs()], list[datetime | None])
    assert_type(app.stop("labels"), RunSummary)
    assert_type((app.submit(job).run, app.status(1).run), tuple[RunSummary, RunSummary])
    assert_type(app.run("job.py"), Result)
    print(app.submit(job), app.report(), app.status(1), app.stop("labels"), app.sweep())


async def main() -> None:
    assert_type(await arun(job, progress=False), Result)
    async with connect() as app:
        assert_type(await app.run(job), Result)
        assert_type(await app.result("labels"), Result)
        assert_type((await app.plan(job)).counts.new, int)
        assert_type((await app.bench("http://127.0.0.1:8000/", concurrency=4)).met, bool)
        async for row in app.stream(job, limit=1):
            assert_type(row, dict[str, Any])
        print(await app.submit(job), await app.report(), await app.status(1), await app.stop("labels"))
"""
MISTAKES = """
from orchestrator import Jobs  # wrong
from orchestrator import Job, Policy, arun, connect, run
from orchestrator.endpoints import HuggingFaceEndpoint
from orchestrator.sinks import JsonSink  # wrong
from orchestrator.sinks import JsonlSink
from orchestrator.sources import JsonlSource, ParquetSource

source, endpoint, sink = JsonlSource("in.jsonl", id="id"), HuggingFaceEndpoint("acme/labels"), JsonlSink("out.jsonl")
Policy(concurrency="much")  # wrong
Policy(concurrencies=4)  # wrong
HuggingFaceEndpoint("acme/labels", pause="sometimes")  # wrong
JsonlSink("out.jsonl", keeps=["text"])  # wrong
ParquetSource(3)  # wrong
Job("labels", "in.jsonl", endpoint, sink)  # wrong
Job("labels", source, sink, sink)  # wrong
Job("labels", source, endpoint, sink, policy=4)  # wrong
job = Job("labels", source, endpoint)
run(3)  # wrong
connect().run(job)  # wrong
run(job)["output"]  # wrong
run(job, limits=1)  # wrong
run(job, limit="all").counts.done  # wrong
connect(ledger=3)  # wrong
for row in run(job):
    row.output  # wrong
with connect() as app:
    app.run(job, concurrency=4)  # wrong
    app.result()  # wrong
    app.runs("labels")  # wrong


async def main() -> None:
    (await arun(job)).failed  # wrong
    async with connect() as app:
        app.run(job).counts  # wrong
        for row in app.result("labels"):  # wrong
            pass
        for row in app.stream(job):  # wrong
            pass
        async for row in app.stream(job):
            row.output  # wrong
"""


def kinds() -> str:
    """Return a script in which every kind is used as its port."""
    lines = ["from orchestrator.ports import Endpoint, Hook, Sink, Source", "from orchestrator.wires import Wire"]
    for port in ("Endpoint", "Hook", "Sink", "Source", "Wire"):
        package = f"orchestrator.{port.lower()}s"
        names = sorted(set(import_module(package).KINDS.values()))
        lines.append(f"from {package} import {', '.join(names)}")
        lines += [f"def use_{name}(value: {name}) -> {port}: return value" for name in names]
    return "\n".join(lines)


def mypy(python: Path, folder: Path) -> set[tuple[str, int]]:
    """Return the files and lines in which mypy finds errors."""
    options = ["--strict", "--config-file=", f"--cache-dir={folder / 'cache'}", f"--python-executable={python}"]
    command = [sys.executable, "-m", "mypy", *options, *(file.name for file in folder.glob("*.py"))]
    checked = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    assert not checked.stderr
    return {(file, int(line)) for file, line in re.findall(r"^(\w+)\.py:(\d+): error: ", checked.stdout, re.MULTILINE)}


def pyright(python: Path, folder: Path) -> set[tuple[str, int]]:
    """Return the files and lines in which pyright finds errors."""
    (folder / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "strict", "include": ["*.py"]}))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", str(python)]
    checked = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    found = json.loads(checked.stdout)["generalDiagnostics"]
    return {(one["file"].rpartition("/")[2].removesuffix(".py"), one["range"]["start"]["line"] + 1) for one in found}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    return install(build(folder), folder / "venv")


@pytest.mark.slow
@pytest.mark.parametrize("checker", [mypy, pyright])
def test_type_checkers_accept_a_users_script_and_report_its_mistakes(
    checker: Checker, tmp_path: Path, python: Path
) -> None:
    for name, script in {"script": SCRIPT, "mistakes": MISTAKES, "kinds": kinds()}.items():
        (tmp_path / f"{name}.py").write_text(script)
    wrong = {("mistakes", number) for number, line in enumerate(MISTAKES.splitlines(), 1) if line.endswith("# wrong")}
    assert checker(python, tmp_path) == wrong
