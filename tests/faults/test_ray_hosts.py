"""Ray on two hosts, which are network namespaces with a cable between them: nothing relies on 127.0.0.1."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import orjson
import pytest

from tests.commands import COMMAND, DEADLINE, until
from tests.handlers import handler
from tests.ray_cluster import one_cluster_at_a_time
from tests.ray_program import QUICK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.commands import Workplace

pytestmark = [pytest.mark.slow, pytest.mark.unmeasured, pytest.mark.timeout(900)]  # another cluster may have to end

HEAD, NODE = "10.77.0.1", "10.77.0.2"
CALL = """
import os, time
with open(os.path.join(self.folder, "asked"), "a") as asked:
    asked.write("x")
while os.path.exists(os.path.join(self.folder, "hold")):
    time.sleep(0.01)
return data["inputs"][::-1]
"""


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    pytest.importorskip("ray")
    with one_cluster_at_a_time(), namespaces() as names:
        yield names


@contextmanager
def namespaces() -> Iterator[tuple[str, str]]:
    """Yield two namespaces, one with each address. Whatever runs in them is gone at the end."""
    names = (f"ray-a-{os.getpid()}", f"ray-b-{os.getpid()}")
    for name in names:
        if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
            pytest.skip("network namespaces cannot be made here: that needs iproute2 and CAP_SYS_ADMIN")
    try:
        ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "name", "cable", "netns", names[1])
        for name, address in zip(names, (HEAD, NODE), strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=True).stdout
            for pid in pids.split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            ip("netns", "del", name)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@pytest.fixture
def folder_of_ray() -> Iterator[str]:
    """A short path, because sockets are in it."""
    folder = tempfile.mkdtemp(prefix="ray-")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)  # processes that were just killed may still write


def test_a_job_uses_workers_of_two_hosts_and_goes_on_when_one_falls_silent(
    workplace: Workplace, folder_of_ray: str, hosts: tuple[str, str]
) -> None:
    folder, (first, second) = workplace.folder, hosts
    model = handler(folder / "model", CALL, start="import os; self.folder = os.path.dirname(path)")
    texts = [f"text {number}" for number in range(200)]
    workplace.write_rows([{"id": text, "text": text} for text in texts])
    job = workplace.job(
        endpoint=f"RayEndpoint(LocalEndpoint({str(model)!r}), 2, address='{HEAD}:6399')",
        prelude="from orchestrator.endpoints import RayEndpoint",
        policy="max_attempts=1",
    )
    (folder / "hold").touch()
    environment = workplace.environment() | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": folder_of_ray}

    def start(host: str, address: str, *words: str) -> None:
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus=1", *words]
        on_host = ["ip", "netns", "exec", host, *ray, f"--node-ip-address={address}", "--object-store-memory=83886080"]
        subprocess.run(on_host, env=environment, check=True, capture_output=True)

    head = ["--head", "--port=6399", "--include-dashboard=false", f"--temp-dir={folder_of_ray}/head"]
    start(first, HEAD, *head, f"--system-config={orjson.dumps(QUICK).decode()}")
    start(second, NODE, f"--address={HEAD}:6399")
    run = ["ip", "netns", "exec", first, *COMMAND, "--db", str(workplace.ledger), "run", "--quiet", str(job)]
    with subprocess.Popen(run, env=environment, cwd=folder) as running:
        until(lambda: (folder / "asked").exists() and len((folder / "asked").read_text()) == 2)

        def nodes() -> set[str]:
            return {worker["node"] for worker in workplace.run("status", "--json").json["workers"]}

        until(lambda: nodes() == {HEAD, NODE})
        ip("-n", second, "link", "set", "cable", "down")  # no process ends, and no connection is closed
        (folder / "hold").unlink()
        assert running.wait(DEADLINE) == 0
    assert [row["output"] for row in workplace.outputs()] == [text[::-1] for text in texts]
    assert workplace.count("attempt") == 0
