"""Two processes on one ledger."""

from __future__ import annotations

import os
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest

from orchestrator.engine.asking.concurrency import UNPROVEN_LIMIT
from orchestrator.engine.awake.reaper import BEAT
from tests.commands import rows, until
from tests.servers import answer_to

if TYPE_CHECKING:
    from tests.commands import Workplace
    from tests.servers import InferenceServer

pytestmark = pytest.mark.unmeasured
ITEMS = 400
CONCURRENCY = 8


def right(workplace: Workplace) -> bool:
    """Check for every item once, in order, with its own answer."""
    found = [(row["id"], row["output"]["said"]) for row in workplace.outputs()]
    return found == [(row["id"], answer_to(str(row["text"]))) for row in rows(range(ITEMS))]


def test_two_jobs_at_once_on_one_ledger_both_finish(workplace: Workplace, server: InferenceServer) -> None:
    workplace.write_rows(rows(range(ITEMS)))
    server.behave(latency=0.005)
    files = {name: workplace.folder / f"{name}.jsonl" for name in ("one", "two")}
    jobs = [
        workplace.job(f"{name}.py", name=repr(name), sink=f"JsonlSink({str(file)!r})") for name, file in files.items()
    ]
    with workplace.start("run", "--quiet", jobs[0]) as first, workplace.start("run", "--quiet", jobs[1]) as second:
        ended = [first.end(), second.end()]
    assert [(end.code, end.err) for end in ended] == [(0, ""), (0, "")]
    assert server.quiet().requests == 2 * ITEMS
    for file in files.values():
        assert len(file.read_bytes().splitlines()) == ITEMS


def test_a_second_run_of_the_same_job_at_once_is_refused_by_name(workplace: Workplace, server: InferenceServer) -> None:
    workplace.write_rows(rows(range(ITEMS)))
    job = workplace.job()
    server.behave(hold_after=0)
    with workplace.start("run", "--quiet", job) as first:
        server.wait(lambda stats: stats.in_flight == UNPROVEN_LIMIT)
        second = workplace.run("run", "--quiet", "--json", job)
        assert second.code == 4
        assert f"process {first.pid} on {socket.gethostname()}" in second.line
        assert "orchestrator status 1" in second.line
        assert second.json["exit_code"] == 4
        server.behave()
        assert first.end().code == 0
    assert right(workplace)
    assert server.quiet().duplicates == 0


def test_a_second_start_takes_over_from_a_killed_run_at_once(workplace: Workplace, server: InferenceServer) -> None:
    workplace.write_rows(rows(range(ITEMS)))
    job = workplace.job()
    server.behave(hold_after=100)
    with workplace.start("run", "--quiet", job) as first:
        server.wait(lambda stats: stats.requests == 100 + CONCURRENCY)
        first.kill()
    server.behave()
    workplace.change("UPDATE process SET lease_until = lease_until + 3600")
    assert workplace.run("run", "--quiet", job).code == 0  # does not wait for the lease of the dead process
    assert right(workplace)
    assert server.quiet().duplicates <= CONCURRENCY


@pytest.mark.slow
def test_a_suspended_holder_with_an_expired_lease_is_fenced(workplace: Workplace, server: InferenceServer) -> None:
    workplace.write_rows(rows(range(ITEMS)))
    job = workplace.job()
    server.behave(hold_after=100)
    with workplace.start("run", "--quiet", job) as first:
        server.wait(lambda stats: stats.requests == 100 + CONCURRENCY)
        until(lambda: workplace.count("result") == 100)
        workplace.change("UPDATE process SET lease_until = lease_until + 3600")
        workplace.suspend(first.pid)
        stopped = time.monotonic()
        assert workplace.run("run", "--quiet", job).code == 4  # its lease has not expired: it may return
        workplace.change("UPDATE process SET lease_until = 1.0")
        server.behave()
        assert workplace.run("run", "--quiet", job).code == 0
        assert right(workplace)
        done = workplace.output.read_bytes()
        until(lambda: time.monotonic() - stopped > BEAT + 1)  # silent for longer than its heartbeat interval
        server.behave(hold_after=0)
        os.kill(first.pid, signal.SIGCONT)
        ended = first.end()
    server.behave()
    assert ended.code == 4
    assert "another one has taken over" in ended.line
    assert workplace.output.read_bytes() == done
    assert server.quiet().duplicates <= 2 * CONCURRENCY  # in flight when it was suspended, and when it resumed
    assert workplace.run("status", "--json").json["state"] == "finished"
    assert workplace.count("attempt") == 0
