"""Scripts that run jobs: in ordinary code, in coroutines, inside a running loop, in threads, twice at once."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.api.scripts import ran, started
from tests.commands import rows

if TYPE_CHECKING:
    from tests.commands import Workplace
    from tests.servers import InferenceServer

ITEMS = 30
_WAYS = {
    "ordinary code": "say(len(run(job_of())))",
    "a coroutine": "say(len(asyncio.run(arun(job_of()))))",
    "a running loop": """
async def main():
    say(len(run(job_of())))
asyncio.run(main())
""",
    "a thread": """
thread = threading.Thread(target=lambda: say(len(run(job_of()))))
thread.start(); thread.join()
""",
    "another event loop library": """
import anyio
async def main():
    async with anyio.create_task_group():
        say(len(await arun(job_of())))
anyio.run(main)
""",
}


@pytest.mark.parametrize("way", _WAYS.values(), ids=_WAYS.keys())
def test_a_script_runs_a_job(workplace: Workplace, server: InferenceServer, way: str) -> None:
    workplace.write_rows(rows(range(ITEMS)))
    ended = ran(workplace, way)
    assert (ended.out, ended.err, ended.code) == (f"{ITEMS}\n", "", 0)
    assert server.quiet().requests == ITEMS


def test_importing_the_api_imports_no_library() -> None:
    script = """
import sys
before = set(sys.modules)
from orchestrator import arun, connect, run
print({name.partition(".")[0] for name in set(sys.modules) - before} & {"anyio", "sqlalchemy", "aiohttp", "pyarrow"})
"""
    ended = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert ended.stdout == "set()\n"


def test_a_connection_that_is_never_left_does_not_keep_the_process_alive(workplace: Workplace) -> None:
    workplace.write_rows(rows(range(ITEMS)))
    ended = ran(workplace, "connection = connect(); app = connection.__enter__(); say(len(app.run(job_of())))")
    assert (ended.out, ended.err, ended.code) == (f"{ITEMS}\n", "", 0)


def test_a_parse_function_that_runs_a_job_is_refused_instead_of_waiting_for_itself(workplace: Workplace) -> None:
    workplace.write_rows(rows(range(3)))
    code = "(cause,) = run(job_of(parse=lambda answer: len(run(job_of('inner'))))).causes; say(cause.message)"
    assert ran(workplace, code).out.startswith("UsageError: a `parse` function cannot run jobs")


_TWO_AT_ONCE = """
both = [job_of("one"), job_of("two", request="again: {text}")]
with connect() as app:
    threads = [threading.Thread(target=lambda job=job: say(job.name, len(app.run(job)))) for job in both]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
async def main():
    async with connect() as app:
        say(*[len(one) for one in await asyncio.gather(*map(app.run, both))])
asyncio.run(main())
"""


def test_one_process_runs_two_jobs_at_once_on_one_ledger(workplace: Workplace, server: InferenceServer) -> None:
    workplace.write_rows(rows(range(ITEMS)))
    ended = ran(workplace, _TWO_AT_ONCE)
    assert ended.err == ""
    *threads, together = ended.out.splitlines()
    assert sorted(threads) == [f"one {ITEMS}", f"two {ITEMS}"]
    assert together == f"{ITEMS} {ITEMS}"
    assert server.quiet().requests == 2 * ITEMS


_SAME_JOB = """
from orchestrator.errors import Busy
async def main():
    async with connect() as app:
        ended = await asyncio.gather(app.run(job_of()), app.run(job_of()), return_exceptions=True)
    (busy,), (result,) = [e for e in ended if isinstance(e, Busy)], [e for e in ended if not isinstance(e, Exception)]
    say(len(result)); say(busy)
asyncio.run(main())
"""


def test_a_job_that_is_being_executed_is_refused_with_the_line_of_the_command(
    workplace: Workplace, server: InferenceServer
) -> None:
    workplace.write_rows(rows(range(ITEMS)))
    server.behave(latency=0.05)
    ended = ran(workplace, _SAME_JOB)
    assert ended.err == ""
    number, line = ended.out.splitlines()
    assert number == str(ITEMS)
    assert line.startswith("run 1 of job 'talk' is being executed by process")


def test_a_process_forked_while_a_run_works_may_not_use_a_ledger(workplace: Workplace, server: InferenceServer) -> None:
    workplace.write_rows(rows(range(ITEMS)))
    server.behave(hold_after=ITEMS // 2)
    script = """
import os
from contextlib import aclosing
async def main():
    async with connect() as app, aclosing(app.stream(job_of(grace=0.1, sink=None))) as stream:
        await anext(stream)
        if os.fork() == 0:
            try:
                run(job_of("another"))
            except Exception as error:
                say(error)
            os._exit(0)
        os.wait()
asyncio.run(main())
"""
    ended = ran(workplace, script)
    assert "forked" in ended.out
    assert "start method `spawn`" in ended.out
    assert workplace.query("SELECT name FROM job") == [("talk",)]


def test_a_failure_is_one_line_without_frames_of_ours(workplace: Workplace) -> None:
    ended = ran(workplace, "run(job_of(source=JsonlSource('missing.jsonl')))")
    assert ended.code == 1
    assert "UsageError: " in ended.err.splitlines()[-1]
    assert "missing.jsonl" in ended.err.splitlines()[-1]
    assert "orchestrator/engine" not in ended.err


def test_a_failed_cell_shows_one_frame_of_the_api(workplace: Workplace) -> None:
    cell = "run(job_of(source=JsonlSource('missing.jsonl', id='id')))"
    shell = "from IPython.core.interactiveshell import InteractiveShell"
    ended = ran(
        workplace, f"{shell}\nInteractiveShell.instance(colors='NoColor', user_ns=globals()).run_cell({cell!r})"
    )
    assert ended.out.count("orchestrator/api/") == 1
    assert "missing.jsonl does not exist" in ended.out.splitlines()[-1]


@pytest.mark.parametrize("shown", [True, False])
def test_a_script_in_a_terminal_shows_progress_unless_told_otherwise(
    workplace: Workplace, server: InferenceServer, shown: bool
) -> None:
    workplace.write_rows(rows(range(ITEMS)))
    if shown:
        server.behave(hold_after=10)
    terminal, standard_error = pty.openpty()
    with started(workplace, f"say(len(run(job_of(), progress={shown})))", stderr=standard_error) as running:
        os.close(standard_error)
        said = b""
        with suppress(OSError):  # how Linux says that nobody has the other end open
            while more := os.read(terminal, 4096):
                said += more
                if f"10/{ITEMS}".encode() in said:
                    server.behave()
        assert running.end().out == f"{ITEMS}\n"
    os.close(terminal)
    assert (b"asking" in said) == shown
    assert shown or not said
