from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import anyio
import orjson
import psutil
import pytest

from orchestrator import Policy
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import EndpointFailed, EndpointSilent, UsageError
from orchestrator.domain.terms import Pause
from orchestrator.endpoints import CommandEndpoint, endpoint_from
from orchestrator.wires.openai import OpenAIChatWire
from tests.commands import DEADLINE, rows, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.commands import Workplace

URL = "http://127.0.0.1:9/"
SERVER = """
import http.server, json, pathlib, sys, time

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200 if pathlib.Path("ready").exists() else 503, {})
    def do_POST(self):
        inputs = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["inputs"]
        pathlib.Path("asked").touch()
        while pathlib.Path("hold").exists():
            time.sleep(0.01)
        self.answer(200, {"said": inputs[::-1]})
    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
CONTROL = """#!/bin/sh
cd "$(dirname "$0")" || exit
echo "$1" >> calls
case $1 in
resume) [ -f pid ] || {{ {python} server.py {port} < /dev/null > log 2>&1 & echo $! > pid; }} ;;
state) if [ -f pid ]; then echo running; else echo inactive; exit 3; fi ;;
pause) [ ! -f pid ] || {{ kill -9 "$(cat pid)"; rm pid; }} ;;
esac
"""


class Rig:
    """A folder with a server, the script that wakes and pauses it, and its state: `pid` is there while it runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.script = folder / "control.sh"
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{found.getsockname()[1]}/"
            port = found.getsockname()[1]
        (folder / "ready").touch()
        (folder / "server.py").write_text(SERVER)
        self.script.write_text(CONTROL.format(python=shlex.quote(sys.executable), port=port))
        self.script.chmod(0o755)

    @property
    def runs(self) -> bool:
        return (self.folder / "pid").exists()

    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().split()

    def endpoint(self, **more: object) -> CommandEndpoint:
        return CommandEndpoint("rig", self.url, **self.commands() | {"health": "/health", "look_every": 0.05} | more)  # type: ignore[arg-type]

    def commands(self) -> dict[str, object]:
        return {verb: ["sh", str(self.script), verb] for verb in ("resume", "state", "pause")}

    def source(self, more: str = "") -> str:
        """The endpoint as it stands in a job file."""
        commands = ", ".join(f"{verb}={command!r}" for verb, command in self.commands().items())
        return f"CommandEndpoint('rig', {self.url!r}, {commands}, health='/health', look_every=0.05, {more})"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    (tmp_path / "hold").unlink(missing_ok=True)
    if rig.runs:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


@contextmanager
def leaving_no_process(pid_file: Path) -> Iterator[None]:
    """The process that a command has written down ends with the block at the latest."""
    try:
        yield
    finally:
        if alive(pid_file):
            os.kill(int(pid_file.read_text()), signal.SIGKILL)


def alive(pid_file: Path) -> bool:
    with suppress(OSError, ValueError, psutil.NoSuchProcess):
        return bool(psutil.Process(int(pid_file.read_text())).status() != psutil.STATUS_ZOMBIE)
    return False


def endpoint(
    *, resume: str = "true", state: str = "echo running", pause: str = "true", **more: object
) -> CommandEndpoint:
    commands = {verb: ["sh", "-c", code] for verb, code in (("resume", resume), ("state", state), ("pause", pause))}
    return CommandEndpoint("e", URL, **commands | {"deadline": 30.0} | more)  # type: ignore[arg-type]


async def seen(state: str, words: Mapping[str, str] | None = None) -> tuple[EndpointState, str]:
    async with endpoint(state=state, words=words or {}).control() as control:
        return await control.state(), control.status_text


# -- the cycle ---------------------------------------------------------------------------------------------------------


async def test_commands_wake_a_server_and_put_it_to_sleep(rig: Rig) -> None:
    (rig.folder / "ready").unlink()
    with anyio.fail_after(DEADLINE):
        async with rig.endpoint().control() as control:
            assert (await control.state(), control.status_text) == (EndpointState.PAUSED, "inactive")
            assert not await control.answers()
            await control.resume()
            assert (await control.state(), control.status_text) == (EndpointState.AWAKE, "running")
            assert not await control.answers()  # it runs, but its health route says 503
            (rig.folder / "ready").touch()
            while not await control.answers():
                await anyio.sleep(0.01)
            async with control.connect(Policy()) as data:
                assert await data.ask([b'"abc"']) == [{"said": "cba"}]
            await control.pause()
            await control.pause()
            assert await control.state() is EndpointState.PAUSED
            assert not await control.answers()


async def test_any_process_can_pause_it_with_what_the_ledger_stores(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poor = os.environ["PATH"]  # like cron's: it lacks what is found now
    monkeypatch.setenv("PATH", f"{poor}{os.pathsep}{tmp_path}")
    monkeypatch.setenv("TOKEN", "s3cret")
    commands = {verb: [rig.script.name, verb] for verb in ("resume", "state", "pause")}
    terms_given = {"leave": "always", "linger": 3, "price_per_hour": 1.5}
    made = rig.endpoint(token_env="TOKEN", words={"frozen": "paused"}, **commands, **terms_given)
    async with made.control() as control:
        await control.resume()
        terms = control.terms
    assert (terms.endpoint, terms.pause, terms.linger, terms.price_per_hour) == ("rig", Pause.ALWAYS, 3, 1.5)
    note = orjson.dumps(terms.pause_with)
    assert b"s3cret" not in note
    monkeypatch.delenv("TOKEN")
    monkeypatch.setenv("PATH", poor)
    monkeypatch.chdir("/")
    async with endpoint_from(orjson.loads(note)).control() as control:
        assert await control.state() is EndpointState.AWAKE
        await control.pause()
        assert await control.state() is EndpointState.PAUSED
        assert control.terms is not None
        assert orjson.dumps(control.terms.pause_with) == note
    assert not (tmp_path / "pid").exists()


def test_a_run_leaves_the_server_paused(workplace: Workplace, rig: Rig) -> None:
    workplace.write_rows(rows(range(20)))
    job = workplace.job(endpoint=rig.source(), prelude="from orchestrator.endpoints import CommandEndpoint")
    ended = workplace.run("run", job)
    assert ended.code == 0, ended.err
    assert [row["output"] for row in workplace.outputs()] == [{"said": f"text of {n}"[::-1]} for n in range(20)]
    assert not rig.runs
    assert (rig.calls().count("resume"), rig.calls().count("pause")) == (1, 1)
    assert "endpoint rig read as inactive" in ended.err


def test_a_run_does_not_pause_a_server_that_was_already_running(workplace: Workplace, rig: Rig) -> None:
    workplace.write_rows(rows(range(3)))
    job = workplace.job(endpoint=rig.source(), prelude="from orchestrator.endpoints import CommandEndpoint")
    subprocess.run([rig.script, "resume"], check=True)
    ended = workplace.run("run", job)
    assert ended.code == 0, ended.err
    assert rig.runs
    assert "pause" not in rig.calls()


def test_a_server_is_paused_even_if_its_run_is_killed(workplace: Workplace, rig: Rig) -> None:
    (rig.folder / "hold").touch()
    workplace.write_rows(rows(range(5)))
    job = workplace.job(endpoint=rig.source(), prelude="from orchestrator.endpoints import CommandEndpoint")
    with workplace.start("run", "--quiet", job) as running:
        until((rig.folder / "asked").exists)
        running.kill()
        until(lambda: not rig.runs)
    until(lambda: not workplace.processes())
    assert workplace.run("sweep", "--dry-run").err.strip() == "nothing is owed"


# -- words -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "meaning"),
    [
        ("echo running", EndpointState.AWAKE),
        ("echo UP; echo", EndpointState.AWAKE),
        ("echo 'Status of model: Active'", EndpointState.AWAKE),
        ("printf 'model\\tUP\\n'", EndpointState.AWAKE),
        ("echo inactive; exit 3", EndpointState.PAUSED),
        ("echo failed; exit 3", EndpointState.FAILED),
        ("echo activating; exit 3", EndpointState.STARTING),
        ("echo deactivating; exit 3", EndpointState.STARTING),
        ("echo scaled to zero", EndpointState.SCALED_TO_ZERO),
        ("echo 0", EndpointState.PAUSED),
        ("echo 2", EndpointState.AWAKE),
        ("printf /0", EndpointState.PAUSED),
        ("printf /1", EndpointState.STARTING),
        ("printf 1/3", EndpointState.AWAKE),
        ("printf 1/0", EndpointState.STARTING),
        ("echo running; echo INIT", EndpointState.STARTING),
        ("echo noise >&2; echo stopped", EndpointState.PAUSED),
    ],
)
async def test_usual_words_and_replicas_are_understood(state: str, meaning: EndpointState) -> None:
    assert (await seen(state))[0] is meaning


async def test_the_users_words_take_precedence_and_may_be_empty() -> None:
    words = {"Frozen Solid": "paused", "running": "starting", "": "paused", "nowhere": "gone"}
    assert await seen("echo frozen solid", words=words) == (EndpointState.PAUSED, "frozen solid")
    assert (await seen("echo Running", words=words))[0] is EndpointState.STARTING
    assert await seen("true", words=words) == (EndpointState.PAUSED, "paused")
    assert (await seen("echo it is nowhere", words=words))[0] is EndpointState.GONE
    with pytest.raises(EndpointSilent):
        await seen("exit 1", words=words)


@pytest.mark.parametrize(("state", "word"), [("echo Wobbling", "'Wobbling'"), ("true", "''"), ("echo 1/x", "'1/x'")])
async def test_an_unknown_word_fails_with_a_remedy(state: str, word: str) -> None:
    with pytest.raises(EndpointFailed) as raised:
        await seen(state)
    said = str(raised.value)
    assert word in said
    assert f"sh -c {state}" in said
    assert "words=" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "state", ["echo warm-up >&2; echo no route to host >&2; exit 255", "echo no route to host; exit 1"]
)
async def test_a_failed_state_command_is_silence_with_its_last_line(state: str) -> None:
    with pytest.raises(EndpointSilent, match=r"no route to host") as raised:
        await seen(state)
    assert "warm-up >&2" in str(raised.value) or "exited with 1" in str(raised.value)


async def test_an_error_message_that_ends_in_a_known_word_is_not_a_state() -> None:
    with pytest.raises(EndpointSilent, match="exited with 1: cannot connect: the API is down"):
        await seen("echo cannot connect: the API is down; exit 1")


# -- commands ----------------------------------------------------------------------------------------------------------


async def test_a_resume_that_fails_is_the_endpoints_failure() -> None:
    async with endpoint(resume="echo trying; echo no quota left >&2; exit 7").control() as control:
        with pytest.raises(EndpointFailed, match=r"endpoint e: `.*sh -c .*` exited with 7: no quota left"):
            await control.resume()


async def test_the_token_is_hidden_in_a_commands_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_OF_TESTS", "s3cretT0ken")
    known = endpoint(resume="echo bad token $TOKEN_OF_TESTS >&2; exit 7", token_env="TOKEN_OF_TESTS")
    async with known.control() as control:
        with pytest.raises(EndpointFailed, match=r"bad token \*\*\*$"):
            await control.resume()


async def test_a_pause_that_fails_is_worth_another_try(tmp_path: Path) -> None:
    code = f"if mkdir {tmp_path}/once 2> /dev/null; then echo busy >&2; exit 1; fi"
    async with endpoint(pause=code).control() as control:
        with pytest.raises(EndpointSilent, match="exited with 1: busy"):
            await control.pause()
        await control.pause(to_zero=True)


async def test_a_command_that_hangs_is_killed_with_everything_it_started(tmp_path: Path) -> None:
    parent, child = tmp_path / "parent", tmp_path / "child"
    code = f"echo $$ > {parent}; sleep 1000 & echo $! > {child}; wait"
    async with endpoint(state=code, deadline=1.0).control() as control:
        with pytest.raises(EndpointSilent, match="did not end within 1 s, so it was killed"):
            await control.state()
    until(lambda: not alive(parent) and not alive(child))


async def test_a_cancelled_command_is_killed_with_everything_it_started(tmp_path: Path) -> None:
    child = tmp_path / "child"
    async with (
        endpoint(resume=f"sleep 1000 & echo $! > {child}.new; mv {child}.new {child}; wait").control() as control,
        anyio.create_task_group() as group,
    ):
        group.start_soon(control.resume)
        while not child.exists():
            await anyio.sleep(0.01)
        assert alive(child)
        group.cancel_scope.cancel()
    until(lambda: not alive(child))


async def test_a_process_that_a_command_leaves_running_is_neither_awaited_nor_killed(tmp_path: Path) -> None:
    child = tmp_path / "child"
    with leaving_no_process(child):
        async with endpoint(state=f"sleep 1000 & echo $! > {child}; echo running").control() as control:
            assert await control.state() is EndpointState.AWAKE
        assert alive(child)


async def test_a_huge_output_is_not_kept_in_memory() -> None:
    before = psutil.Process().memory_info().rss
    assert await seen("yes noise | head -c 50000000; echo; echo running") == (EndpointState.AWAKE, "running")
    assert psutil.Process().memory_info().rss - before < 40_000_000


async def test_part_of_a_line_is_shown_whatever_its_length_and_bytes() -> None:
    with pytest.raises(EndpointFailed) as raised:
        await seen("head -c 100000 /dev/zero | tr '\\0' '\\377'")
    assert len(str(raised.value)) < 1000


async def test_a_command_has_empty_standard_input() -> None:
    assert (await seen("cat; echo running"))[0] is EndpointState.AWAKE


async def test_a_program_that_cannot_be_run_is_silence(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/nowhere/at/all\n")
    program.chmod(0o755)
    async with endpoint().control() as control:
        control._commands = {"pause": (str(program),)}
        with pytest.raises(EndpointSilent, match="cannot be run"):
            await control.pause()


# -- before anything is woken ------------------------------------------------------------------------------------------


async def test_a_missing_program_or_token_is_reported_before_anything_is_resumed(rig: Rig) -> None:
    with pytest.raises(UsageError, match=r"endpoint rig: there is no program 'kubectl-nope', which its pause command"):
        async with rig.endpoint(pause=["kubectl-nope", "scale"]).control():
            pass
    with pytest.raises(UsageError, match="set the environment variable NO_SUCH_TOKEN"):
        async with rig.endpoint(token_env="NO_SUCH_TOKEN").control():
            pass
    assert not (rig.folder / "calls").exists()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"pause": "kubectl scale"}, "pause must be a list of arguments"),
        ({"state": []}, "state must be a list of arguments"),
        ({"resume": ["sh", 1]}, "resume must be a list of arguments"),
        ({"words": {"up": "awaken"}}, r"words\['up'\] must be one of paused"),
        ({"leave": "sometimes"}, "leave must be one of if_resumed, always"),
        ({"url": "127.0.0.1:80"}, "needs a URL"),
        ({"url": "http://me:secret@host/"}, "must not hold a password"),
        ({"url": "http://host/#secret"}, "must not have .* a part after #"),
        ({"url": "http://host/ "}, "must not have spaces around it"),
        ({"name": " "}, "needs a name"),
        ({"deadline": 0}, "deadline must be a number of seconds"),
    ],
)
def test_invalid_settings_are_refused(wrong: dict[str, object], why: str) -> None:
    right: dict[str, object] = {"name": "e", "url": URL, "resume": ["true"], "state": ["true"], "pause": ["true"]}
    with pytest.raises(ValueError, match=why):
        CommandEndpoint(**right | wrong)  # type: ignore[arg-type]


def test_identity_is_the_model_and_the_wire() -> None:
    assert endpoint().identity(Policy()) == {
        "kind": "command",
        "model": "e",
        "wire": "huggingface",
        "parameters": {},
        "lists": False,
    }
    assert endpoint(model="m").identity(Policy(batch_size=4))["lists"] is True
    chat = endpoint(model="m", wire=OpenAIChatWire("m", {"seed": 1}))
    assert chat.identity(Policy())["parameters"] == {"seed": 1}
    with pytest.raises(UsageError, match=r"policy\.batch_size cannot be 2"):
        chat.identity(Policy(batch_size=2))
