"""Running out of local resources counts no attempt, does not blame the endpoint, and is reported once."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from orchestrator import Policy
from tests.commands import COMMAND, rows
from tests.engine.scripted import QUICK, Scripted, job_of, run

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from orchestrator.store import Store
    from tests.commands import Workplace
    from tests.servers import InferenceServer


async def test_concurrency_falls_if_no_connection_can_be_opened_and_nothing_is_blamed(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = Scripted(room=5, delay=0.002)
    policy = Policy(backoff=QUICK, concurrency=40, max_attempts=1)
    report = await run(job_of([f"text {number}" for number in range(400)], endpoint, tmp_path, policy), store)
    assert (report.counts.completed, report.counts.discarded) == (400, 0)
    assert endpoint.calls.count("resume") == 1
    assert endpoint.refused_room < 100
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("scripted: ")
    assert said.endswith("requests at once, not 40: this machine has no room for more (Too many open files)")


async def test_a_batch_whose_halves_get_no_connection_loses_no_answer(store: Store, tmp_path: Path) -> None:
    endpoint = Scripted(batch_size=8, no_room_at={1, 2})
    texts = ["poison", *(f"text {number}" for number in range(7))]
    report = await run(job_of(texts, endpoint, tmp_path, Policy(backoff=QUICK, batch_size=8, concurrency=1)), store)
    assert (report.counts.completed, report.counts.discarded) == (7, 1)


def test_a_process_never_exceeds_the_connections_that_it_may_open(
    workplace: Workplace, server: InferenceServer
) -> None:
    workplace.write_rows(rows(range(400)))
    server.behave(latency=0.05)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))"
    ended = workplace.run("run", workplace.job(prelude=limit, policy="concurrency=300"))
    assert ended.code == 0
    stats = server.stats()
    assert 20 < stats.peak < 110
    assert stats.requests == 400
    assert ended.err.count("requests at once, not 300: this process may have 128 open files (ulimit -n)") == 1


def test_a_command_raises_its_limit_of_open_files_to_the_maximum(workplace: Workplace) -> None:
    workplace.write_rows(rows(range(1)))
    job = workplace.job(prelude="import resource; assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 64")
    limited = ["sh", "-c", 'ulimit -Sn 64; exec "$@"', "sh", *COMMAND, "--db", str(workplace.ledger), "run", str(job)]
    ended = subprocess.run(limited, env=workplace.environment(), check=False, capture_output=True, text=True)
    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False), ended.stderr
