"""Our own worker in the container of a Hugging Face Job: a real process, which answers only holders of its token."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

import orjson
import pytest

from orchestrator.domain.worker import CONTAINER_TOKEN_ENV, CONTAINER_TOKEN_HEADER, SERVING
from tests.commands import rows, until
from tests.handlers import handler
from tests.hf_jobs_service import CANCELED, JobsService, jobs_service

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.commands import Workplace


@contextmanager
def container(command: Sequence[str], secrets: Mapping[str, str]) -> Iterator[str]:
    """Run the command of a job on a free port of this machine; yield its URL."""
    assert command[0] == "python"
    program = [sys.executable, *command[1:], "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(program, env={**os.environ, **secrets}, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith(SERVING)
            yield line.removeprefix(SERVING).strip()
        finally:
            process.terminate()
            assert process.wait() == 0


def status_of(url: str, body: bytes | None = None, **headers: str) -> int:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code


@pytest.fixture
def service() -> Iterator[JobsService]:
    with jobs_service() as service:
        yield service


def test_a_worker_in_a_job_answers_the_run_and_nobody_else_and_its_token_is_stored_nowhere(
    workplace: Workplace, service: JobsService
) -> None:
    folder = handler(workplace.folder / "model", "return data['inputs'][::-1]")
    workplace.write_rows(rows(range(5)))
    job = workplace.job(
        prelude="from orchestrator.endpoints import HuggingFaceJobEndpoint",
        endpoint=f"HuggingFaceJobEndpoint.worker('acme/own', {str(folder)!r}, image='acme/worker', flavor='cpu-basic')",
    )
    service.stuck_after = 0
    env = {"HF_TOKEN": service.token, "HF_ENDPOINT": service.url}
    with workplace.start("run", "--quiet", job, env=env) as running:
        until(service.alive)
        (ran,) = service.alive()
        assert ran.spec["secrets"].keys() == {CONTAINER_TOKEN_ENV}
        token = ran.spec["secrets"][CONTAINER_TOKEN_ENV]
        with container(ran.spec["command"], ran.spec["secrets"]) as url:
            assert status_of(f"{url}/health") == 200
            asked = orjson.dumps({"inputs": "a"})
            assert status_of(f"{url}/", asked) == 401
            assert status_of(f"{url}/batch", asked, **{CONTAINER_TOKEN_HEADER: token[:-1]}) == 401
            assert status_of(f"{url}/", asked, **{CONTAINER_TOKEN_HEADER: token}) == 200
            service.behind, service.stuck_after = url, None
            ended = running.end()
    assert (ended.code, ended.err) == (0, "")
    assert [row["output"] for row in workplace.outputs()] == [str(row["text"])[::-1] for row in rows(range(5))]
    assert ran.stage == CANCELED
    described = workplace.run("describe", job, env=env).out
    assert token not in described
    stored = [path.read_bytes() for path in workplace.folder.rglob("*") if path.is_file()]
    assert not any(token.encode() in content or service.token.encode() in content for content in stored)


def test_a_container_without_a_token_says_so_and_ends() -> None:
    command = [sys.executable, "-m", "orchestrator.worker.container", "--model", "nothing"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"{CONTAINER_TOKEN_ENV} holds no token for clients to send" in done.stderr


def test_a_container_whose_model_cannot_be_loaded_says_so_and_ends() -> None:
    command = [sys.executable, "-m", "orchestrator.worker.container", "--model", "nothing", "--handler", "--port", "0"]
    environment = {**os.environ, CONTAINER_TOKEN_ENV: "t"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert "cannot serve: " in done.stderr.splitlines()[-1]
