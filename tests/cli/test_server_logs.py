"""The logs of servers on this machine: kept, shown, followed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio import to_thread

from orchestrator.domain.errors import UsageError
from orchestrator.endpoints.last_words import ending, reason
from orchestrator.endpoints.log_rotation import KEPT, LARGE, keep_small, older
from orchestrator.endpoints.server_log import ServerLog
from tests.commands import DEADLINE, rows, until

if TYPE_CHECKING:
    from tests.commands import Workplace

PROGRAM = str(Path(__file__).parents[1] / "server_program.py")
NO_TOKEN = {"HF_TOKEN": ""}


def begun(log: ServerLog, *words: bytes) -> int:
    """Start a log with this text; return its offset in the file."""
    file, since = log.begin("server\n --port 1")
    for word in words:
        os.write(file, word)
    os.close(file)
    return since


def folder_of(workplace: Workplace) -> Path:
    """Return the folder of the server logs; the logs of runs are beside the ledger."""
    (found,) = {path.parent for path in workplace.folder.rglob("*.log") if not path.name.endswith(".events.log")}
    return found


def test_a_large_log_is_rotated_at_the_next_start_and_three_are_kept(tmp_path: Path) -> None:
    log = ServerLog(tmp_path / "logs" / "small.log")
    begun(log, b"first\n")
    assert begun(log, b"second\n") > 0
    assert [line[-6:] for line in log.path.read_text().splitlines()[1::2]] == ["first", "second"]
    for _ in range(KEPT + 2):
        with log.path.open("ab") as file:
            file.truncate(LARGE)
        begun(log, b"next\n")
    assert sorted(path.name for path in log.path.parent.iterdir()) == ["small.log", "small.log.1", "small.log.2"]
    assert log.path.stat().st_size < 100


def test_the_last_line_belongs_to_this_start_without_colours_and_with_the_last_state_of_a_bar(tmp_path: Path) -> None:
    log = ServerLog(tmp_path / "small.log")
    begun(log, b"of another start\n")
    since = begun(log)
    assert (log.last_line(since), log.tail(since)) == ("", "")
    since = begun(log, b"\x1b[32mINFO\x1b[0m ready\n\n", b"weights:  10%\rweights:  80%\r")
    assert log.last_line(since) == "weights:  80%"
    assert log.tail(since).startswith("INFO ready\n")
    log.path.unlink()
    assert log.tail(since) == ""


def test_an_unwritable_log_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        begun(ServerLog(tmp_path / "file" / "small.log"))


def test_an_endpoint_name_becomes_a_file_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert ServerLog.of("local:org/m 1").path.name == "local-org-m-1.log"
    assert ServerLog.of("../..", 2).path.name == "server-2.log"


async def test_following_continues_into_a_new_file(tmp_path: Path) -> None:
    log = ServerLog(tmp_path / "small.log")
    await to_thread.run_sync(begun, log, b"one\ntwo\nthr")
    seen: list[str] = []
    with anyio.fail_after(DEADLINE):
        async for line in log.lines(tail=2, follow=True):
            seen.append(line)
            if line == "two":
                await to_thread.run_sync(begun, log, b"ee\n")
            if line.startswith("---"):  # another start, in the same file
                log.path.rename(tmp_path / "elsewhere.log")
                await to_thread.run_sync(begun, log, b"last\n")
            if line == "last":
                break
    assert seen[:2] == ["two", "thr"]
    assert "ee" in seen
    assert [line async for line in log.lines(tail=1)] == ["last"]
    with pytest.raises(UsageError, match="there is no log"):
        [line async for line in ServerLog(tmp_path / "absent.log").lines()]


WRITES = """
import sys
for order in sys.stdin:
    for number in range(*map(int, order.split())):
        print(number, "x" * 10_000, flush=True)
"""


async def test_a_log_stays_small_while_its_server_writes_and_can_still_be_followed(tmp_path: Path) -> None:
    log = ServerLog(tmp_path / "busy.log")
    file, _ = await to_thread.run_sync(log.begin, "busy")
    writer = await anyio.open_process([sys.executable, "-c", WRITES], stdout=file)
    await to_thread.run_sync(os.close, file)
    assert writer.stdin is not None
    wanted = iter(range(3000))
    seen: list[int] = []
    with anyio.fail_after(DEADLINE):
        await writer.stdin.send(b"0 1001\n")
        async for line in log.lines(follow=True):
            if not line.startswith("-"):
                seen.append(int(line.split()[0]))
                assert seen[-1] == next(wanted)
            if seen and seen[-1] == 2000:
                break
            if seen and seen[-1] == 1000 and len(seen) == 1001:  # 10 MB: the log is truncated without another start
                while log.path.stat().st_size:
                    await anyio.sleep(0.02)
                await writer.stdin.send(b"1001 2001\n")
        while log.path.stat().st_size:
            await anyio.sleep(0.02)
        await writer.stdin.aclose()
        await writer.wait()
    assert [older(log.path, number).stat().st_size // LARGE for number in (1, 2)] == [1, 1]
    assert older(log.path, 1).stat().st_mode & 0o777 == 0o600
    assert not older(log.path, 3).exists()


async def test_following_survives_the_removal_of_the_log(tmp_path: Path) -> None:
    log = ServerLog(tmp_path / "small.log")
    await to_thread.run_sync(begun, log, b"one\n")
    older(log.path, 1).touch()
    seen: list[str] = []
    with anyio.fail_after(DEADLINE):
        async for line in log.lines(tail=1, follow=True):
            seen.append(line)
            if line == "one":
                older(log.path, 1).unlink()
                await anyio.Path(log.path).write_bytes(b"two\n")
            if line == "two":
                break
    assert seen == ["one", "two"]


def watchers() -> int:
    return sum(thread.name == "log watched.log" for thread in threading.enumerate())


def test_the_watcher_of_a_log_ends_with_its_server(tmp_path: Path) -> None:
    log = ServerLog(tmp_path / "watched.log")
    file, _ = log.begin("server")
    assert watchers() == 1
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=file) as server:
        os.close(file)
        assert watchers() == 1
        server.communicate(b"\n")
    until(lambda: not watchers())


def test_the_reason_is_the_last_recognized_line_or_else_the_last_line() -> None:
    log = "ValueError: No available memory for the cache blocks.\nRuntimeError: Engine core initialization failed.\n"
    assert reason(log).startswith("ValueError: No available memory for the cache blocks; the device has too little")
    assert reason("a\n\nb\r\n") == "b"
    assert reason("") == "it wrote nothing"
    assert (ending(3), ending(-9), ending(-15)) == (
        "ended with exit code 3",
        "was ended by SIGKILL (out of memory?)",
        "was ended by SIGTERM",
    )
    assert ending(-63) == "was ended by signal 63"


def test_logs_shows_the_output_of_a_server_from_the_settings_or_a_job_file(workplace: Workplace) -> None:
    workplace.write_rows(rows(range(3)))
    (workplace.folder / "mine.toml").write_text(
        f'[endpoints.mine]\nkind = "local_server"\ncommand = ["{sys.executable}", "{PROGRAM}", "--port", "{{port}}"]\n'
        '[endpoints.theirs]\nkind = "http"\nurl = "http://127.0.0.1:9/"\n'
    )
    prelude = "import sys\nfrom orchestrator.endpoints import LocalServer, named"
    job = workplace.job(endpoint="named('mine')", prelude=prelude)
    config = {"ORCHESTRATOR_CONFIG": "mine.toml"}
    absent = workplace.run("endpoints", "logs", "mine", env=config)
    assert absent.code == 2
    assert "there is no log" in absent.line
    assert workplace.run("run", "--quiet", job, env=config).code == 0
    shown = workplace.run("endpoints", "logs", "mine", env=config)
    assert shown.code == 0
    assert shown.out.splitlines()[-1] == "loading weights: 50%"
    with workplace.start("endpoints", "logs", "mine", "-f", "--tail", "1", env=config) as running:
        assert running.process.stdout is not None
        assert running.process.stdout.readline() == "loading weights: 50%\n"
        with (folder_of(workplace) / "mine.log").open("a") as log:
            log.write("and more\n")
        assert running.process.stdout.readline() == "and more\n"
        with (folder_of(workplace) / "mine.log").open("a") as log:
            log.write("x" * LARGE + "\n")
        keep_small(folder_of(workplace) / "mine.log")
        with (folder_of(workplace) / "mine.log").open("a") as log:
            log.write("after that\n")
        assert running.process.stdout.readline() == "x" * LARGE + "\n"
        assert running.process.stdout.readline() == "after that\n"
    command = f"[{sys.executable!r}, {PROGRAM!r}, '--port', '{{port}}']"
    job = workplace.job(name="'other'", endpoint=f"LocalServer({command}, model='of-a-job')", prelude=prelude)
    assert workplace.run("run", "--quiet", "--overwrite", job).code == 0
    assert workplace.run("endpoints", "logs", "local:of-a-job").out.endswith("loading weights: 50%\n")
    assert (
        "must be the number of a replica"
        in workplace.run("endpoints", "logs", "mine", "--replica", "x", env=config).line
    )
    refused = workplace.run("endpoints", "logs", "theirs", env=config | NO_TOKEN)
    assert "logs is for Hugging Face endpoints only" in refused.line
    assert "is a model on this machine" in workplace.run("endpoints", "show", "mine", env=config).line
