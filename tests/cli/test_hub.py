"""Jobs whose rows come from the Hugging Face Hub, and whose answers go there, by the commands of the user."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.hub_server import FakeHub, Trouble, fake_hub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.commands import Workplace
    from tests.servers import InferenceServer

IMPORT = "from orchestrator.sinks import HubSink"
SINK = "HubSink('acme/reviews', keep=['text'])"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with fake_hub() as hub:
        yield hub


def loaded(hub: FakeHub, home: Path, script: str) -> object:
    """Return what a script with the user's libraries prints as JSON."""
    code = f"import datasets, json\ndatasets.disable_progress_bars()\n{script}"
    environment = hub.environment(home)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("card", [True, False])
def test_datasets_loads_what_a_run_has_delivered_and_a_second_run_changes_nothing(
    workplace: Workplace, hub: FakeHub, tmp_path: Path, *, card: bool
) -> None:
    workplace.write_rows({"id": text, "text": text} for text in ("a", "b", "poison", "c"))
    job = workplace.job(prelude=IMPORT, sink=SINK.replace("keep", f"card={card}, keep"))
    env = hub.environment(tmp_path)
    planned = workplace.run("plan", job, env=env)
    assert planned.code == 0, planned.err
    assert hub.repos == {}
    ended = workplace.run("run", job, "--json", env=env)
    assert ended.code == 3, ended.err
    assert ended.json["manifest"]["commit"] == hub.dataset("acme/reviews").commits[-1].oid
    again = workplace.run("run", job, "--json", env=env)
    assert again.code == 3, again.err
    assert len(hub.dataset("acme/reviews").commits) == 2
    script = "print(json.dumps(datasets.load_dataset('acme/reviews', split='train').to_list()))"
    rows = loaded(hub, tmp_path, script)
    assert isinstance(rows, list)
    assert [row["text"] for row in rows] == ["a", "b", "c"]
    assert [row["output"] for row in rows] == [{"said": text, "pad": ""} for text in ("a", "b", "c")]
    for content in [*hub.dataset("acme/reviews").files.values(), workplace.ledger.read_bytes()]:
        assert hub.token.encode() not in content


def test_rows_come_from_the_hub_and_go_there_by_xet_which_is_the_default(
    workplace: Workplace, server: InferenceServer, hub: FakeHub, tmp_path: Path
) -> None:
    hub.add("acme/in", {f"data/{name}.jsonl": f'{{"id": "{name}", "text": "{name}"}}\n'.encode() for name in "ab"})
    source = "JsonlSource('hf://datasets/acme/in/data/*.jsonl', id='id')"
    job = workplace.job(prelude=IMPORT, source=source, sink=SINK)
    env = hub.environment(tmp_path, xet=True)
    first = workplace.run("run", job, "--json", env=env)
    assert first.code == 0, first.err
    hub.push("acme/in", {"data/b.jsonl": b'{"id": "b", "text": "new"}\n'})
    second = workplace.run("run", job, "--json", env=env)
    assert second.code == 0, second.err
    assert server.stats().asked == {"a", "b", "new"}
    assert hub.seen("POST /v1/xorbs/")
    assert hub.seen("PUT /lfs/") == []
    script = "print(json.dumps(datasets.load_dataset('acme/reviews', split='train')['text'][:]))"
    assert loaded(hub, tmp_path, script) == ["a", "new"]


def test_what_is_published_holds_no_secret_of_the_job(workplace: Workplace, hub: FakeHub, tmp_path: Path) -> None:
    workplace.write_rows([{"id": "1", "text": "poison"}, {"id": "2", "text": "b"}])
    endpoint = f"HttpEndpoint('{workplace.url}?key=secret1&x=secret2', headers={{'X-Api-Key': 'secret3'}})"
    request = "{'inputs': '{text}', 'parameters': {'api_key': 'secret4'}}"
    job = workplace.job(prelude=IMPORT, sink=SINK, endpoint=endpoint, request=request)
    ended = workplace.run("run", "--quiet", job, env=hub.environment(tmp_path))
    assert ended.code == 3, ended.err
    published = b"".join(hub.dataset("acme/reviews").files.values())
    assert b"api_key" in published
    assert b"secret" not in published


@pytest.mark.parametrize(
    ("trouble", "code", "words"),
    [
        (Trouble("POST .*/preupload/", 400, message="storage is full"), 2, "all answers are kept"),
        (Trouble("POST .*/commit/", 503, times=2), 4, "run again later"),
    ],
)
def test_a_delivery_that_fails_is_one_line_and_the_next_run_delivers(
    workplace: Workplace, server: InferenceServer, hub: FakeHub, tmp_path: Path, trouble: Trouble, code: int, words: str
) -> None:
    workplace.write_rows({"id": text, "text": text} for text in ("a", "b"))
    job = workplace.job(prelude=IMPORT, sink=SINK)
    hub.add("acme/reviews", visibility="private")
    hub.trouble(trouble)
    ended = workplace.run("run", "--quiet", job, env=hub.environment(tmp_path))
    assert ended.code == code
    assert f"acme/reviews: the Hub answers {trouble.status}" in ended.line
    assert words in ended.line
    assert set(hub.dataset("acme/reviews").files) == {".gitattributes"}
    again = workplace.run("run", job, "--json", env=hub.environment(tmp_path))
    assert again.code == 0, again.err
    assert server.stats().requests == 2
    assert "data/train-00000-of-00001.parquet" in hub.dataset("acme/reviews").files


@pytest.mark.unmeasured
def test_a_run_that_is_killed_before_its_commit_leaves_an_empty_dataset_and_the_same_command_delivers(
    workplace: Workplace, server: InferenceServer, hub: FakeHub, tmp_path: Path
) -> None:
    workplace.write_rows({"id": text, "text": text} for text in ("a", "b"))
    job, env = workplace.job(prelude=IMPORT, sink=SINK), hub.environment(tmp_path)
    pids: list[int] = []
    hub.trouble(Trouble("^POST .*/preupload/", meanwhile=lambda: os.kill(pids[0], signal.SIGKILL)))
    with workplace.start("run", "--quiet", job, env=env) as running:
        pids.append(running.pid)
        assert running.end().code == -signal.SIGKILL
    dataset = hub.dataset("acme/reviews")
    assert (len(dataset.commits), dataset.visibility) == (1, "private")
    asked = server.stats().requests
    ended = workplace.run("run", "--quiet", job, env=env)
    assert ended.code == 0, ended.err
    assert len(dataset.commits) == 2
    assert "data/train-00000-of-00001.parquet" in dataset.files
    assert server.stats().requests == asked
