"""Tasks and threads that the job's code leaves running do not keep a command's process for ever."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.commands import DEADLINE

BEGINNING = """
import anyio, asyncio, sys, threading, time
from orchestrator.cli import leftovers
leftovers._TASKS, leftovers._THREADS = 0.1, %d

async def stubborn():
    while True:
        try:
            await asyncio.sleep(600)
        except BaseException:
            pass

async def rollout():
"""
END = """
    await asyncio.sleep(0)
    return "delivered"

print(anyio.run(leftovers.leaving_tasks_behind, rollout, backend_options={"use_uvloop": %s}), flush=True)
leftovers.end_in_time(3)
sys.exit(3)
"""
FORCED = "orchestrator: ended by force, since threads did not end within 1 s: "
LEFT = {
    "nothing": ("pass", ""),
    "a task": ("asyncio.create_task(stubborn())", "a task goes on although it was cancelled, so it was left behind: "),
    "a thread of the loop": ("asyncio.get_running_loop().run_in_executor(None, time.sleep, 600)", FORCED),
    "a thread": ("threading.Thread(target=time.sleep, args=(600,)).start()", FORCED),
    "a thread that ends": ("await asyncio.to_thread(time.sleep, 0)", ""),
}


@pytest.mark.parametrize("uvloop", [True, False])
@pytest.mark.parametrize("left", LEFT)
def test_a_command_ends_whatever_was_left_running(left: str, *, uvloop: bool) -> None:
    code, said = LEFT[left]
    patience = 1 if said == FORCED else DEADLINE
    script = f"{BEGINNING % patience}    {code}{END % uvloop}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert (done.returncode, done.stdout) == (3, "delivered\n"), done.stderr
    assert done.stderr.startswith(said)
    assert bool(done.stderr) is bool(said)
