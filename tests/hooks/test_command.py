from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import anyio
import orjson
import psutil
import pytest

from orchestrator.domain.notification import Event, Notification, NotificationFailed
from orchestrator.hooks.command import CommandHook
from tests.commands import DEADLINE, until

if TYPE_CHECKING:
    from pathlib import Path

NEWS = Notification("msg_1", Event.FAILED, 12, "talk", "failed", b'{"run":12}')
KEEPS = """
import json, os, sys
kept = {name: value for name, value in os.environ.items() if name.startswith("ORCHESTRATOR_")}
open(sys.argv[1], "w").write(json.dumps([sys.stdin.read(), kept, sys.argv[2]]))
"""


async def test_a_command_gets_the_report_and_its_arguments_bypass_the_shell(tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    await CommandHook([sys.executable, "-c", KEEPS, str(kept), "$HOME; `id`"]).notify(NEWS)
    body, environment, argument = orjson.loads(kept.read_bytes())
    assert orjson.loads(body) == {"run": 12}
    assert environment == {
        "ORCHESTRATOR_RUN": "12",
        "ORCHESTRATOR_JOB": "talk",
        "ORCHESTRATOR_STATE": "failed",
        "ORCHESTRATOR_EVENT": "run.failed",
    }
    assert argument == "$HOME; `id`"


async def test_a_command_need_not_read_its_input() -> None:
    large = Notification("msg_1", Event.FINISHED, 12, "talk", "finished", b"x" * 10_000_000)
    await CommandHook([sys.executable, "-c", "import sys; sys.stdin.close()"]).notify(large)


async def test_the_beginning_of_the_output_of_a_command_is_reported_with_its_length(
    capfd: pytest.CaptureFixture[str],
) -> None:
    talks = "import sys; sys.stdout.write('hello' + 'x' * 30_000_000)"
    await CommandHook([sys.executable, "-c", talks]).notify(NEWS)
    said = capfd.readouterr().err
    assert said.startswith("helloxxx")
    assert said.endswith("said 30,000,005 bytes; these were the first 65,536]\n")
    assert len(said) < 70_000


async def test_background_processes_of_a_command_are_not_waited_for(capfd: pytest.CaptureFixture[str]) -> None:
    leaves = (
        "import subprocess, sys; "
        "print(subprocess.Popen(['sleep', '600'], start_new_session=True).pid, file=sys.stderr, flush=True)"
    )
    with anyio.fail_after(DEADLINE):
        await CommandHook([sys.executable, "-c", leaves]).notify(NEWS)
    psutil.Process(int(capfd.readouterr().err)).kill()


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([sys.executable, "-c", "raise SystemExit(7)"], "exit code 7"),
        (["/no/such/program", "--token", "s3cret"], "cannot be run: No such file"),
    ],
)
async def test_a_failing_command_does_not_count_as_notified(argv: list[str], says: str) -> None:
    with pytest.raises(NotificationFailed, match=says) as caught:
        await CommandHook(argv).notify(NEWS)
    assert "s3cret" not in str(caught.value) + CommandHook(argv).describe()


async def test_a_hanging_command_is_killed_with_all_its_processes(tmp_path: Path) -> None:
    started = tmp_path / "pid"
    with pytest.raises(NotificationFailed, match=r"did not end within 2 s"):
        await CommandHook(["sh", "-c", 'sleep 600 & echo $! > "$0"; wait', str(started)], timeout=2.0).notify(NEWS)
    pid = int(started.read_text())
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


@pytest.mark.parametrize("argv", [[], "notify --done", ["notify", 3]])
def test_an_invalid_command_is_refused_in_the_job_file(argv: list[str]) -> None:
    with pytest.raises(ValueError, match="must be a list of arguments"):
        CommandHook(argv)
