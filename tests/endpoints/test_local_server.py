"""A server that we start, with real processes: its life, its log, its replicas."""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import orjson
import psutil
import pytest

from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import EndpointFailed, EndpointLost, RequestFailed, UsageError
from orchestrator.domain.policy import Policy
from orchestrator.endpoints import LocalServer
from orchestrator.ports import Endpoint, HasMembers
from orchestrator.wires import OpenAIChatWire
from tests.commands import DEADLINE
from tests.members import replica_of, replicas_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.ports import ControlPlane, DataPlane

ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, str(ROOT / "tests" / "server_program.py"), "--port", "{port}")


def server(*arguments: object, **settings: Any) -> LocalServer:
    given: dict[str, Any] = {"name": "small", "grace": 5.0} | settings
    return LocalServer([*PROGRAM, *map(str, arguments)], **given)


async def wake(control: ControlPlane) -> list[EndpointState]:
    """Every state seen on the way."""
    await control.resume()
    seen = [await control.state()]
    with anyio.fail_after(DEADLINE):
        while seen[-1] is EndpointState.STARTING:
            await anyio.sleep(0.02)
            seen.append(await control.state())
    return seen


async def ask(data: DataPlane, inputs: object) -> Any:
    (answer,) = await data.ask([orjson.dumps(inputs)])
    return answer


async def gone(*pids: int) -> None:
    with anyio.fail_after(DEADLINE):
        for pid in pids:
            with suppress(psutil.NoSuchProcess):
                while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                    await anyio.sleep(0.02)


async def there(*paths: Path) -> None:
    with anyio.fail_after(DEADLINE):
        for path in paths:
            while not await anyio.Path(path).exists() or not (await anyio.Path(path).stat()).st_size:
                await anyio.sleep(0.02)


async def held(path: Path, count: int) -> None:
    """So many requests are in a server's hands."""
    with anyio.fail_after(DEADLINE):
        while not await anyio.Path(path).exists() or (await anyio.Path(path).stat()).st_size < count:
            await anyio.sleep(0.02)


# -- its life ----------------------------------------------------------------------------------------------------------


async def test_a_server_is_woken_asked_and_put_to_sleep(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    endpoint = server("--loads-until", ready, "--children", tmp_path / "children")
    assert isinstance(endpoint, Endpoint)
    async with replica_of(endpoint) as control:
        assert (await control.state(), control.terms) == (EndpointState.PAUSED, None)
        await control.resume()
        with anyio.fail_after(DEADLINE):
            while "loading weights: 50%" not in control.status_text:
                assert await control.state() is EndpointState.STARTING
                await anyio.sleep(0.02)
        assert control.status_text == "loading: loading weights: 50%"
        assert not await control.answers()
        await control.resume()  # it is starting already
        ready.touch()
        assert (await wake(control))[-1] is EndpointState.AWAKE
        assert (control.status_text, await control.answers()) == ("awake", True)
        async with control.connect(Policy()) as data:
            answer = await ask(data, "fine")
            assert (answer["inputs"], data.limits.items, data.max_in_flight) == ("fine", 1, None)
            assert "requests_processing 1" in (await data.metrics() or "")
        await there(tmp_path / "children")
        started = orjson.loads(await anyio.Path(tmp_path / "children").read_bytes())
        assert os.getpgid(answer["pid"]) != os.getpgrp()  # Ctrl-C in a terminal is not for it
        await control.pause()
        for pid in (answer["pid"], *started):  # what it started, too, wherever that has gone
            assert not psutil.pid_exists(pid)
        assert await control.state() is EndpointState.PAUSED
        await control.pause()  # safe to repeat
    log = await anyio.Path(endpoint.log().path).read_text()
    assert log.startswith("--- 20")
    assert log.endswith("loading weights: 50%\n")
    assert (await anyio.Path(endpoint.log().path).stat()).st_mode & 0o777 == 0o600


async def test_leaving_ends_a_server_that_ignores_sigterm_even_while_it_loads(tmp_path: Path) -> None:
    endpoint = server("--loads-until", tmp_path / "never", "--stubborn", grace=0.2)
    async with replica_of(endpoint) as control:
        await control.resume()
        with anyio.fail_after(DEADLINE):
            while control.status_text == "loading":
                await control.state()
        supervisor = control.pid
        assert supervisor is not None
        (program,) = psutil.Process(supervisor).children()
    assert not psutil.pid_exists(supervisor)
    assert not psutil.pid_exists(program.pid)


async def test_a_server_killed_over_a_request_is_lost_with_blame_and_can_be_woken_again() -> None:
    async with replica_of(server()) as control:
        await wake(control)
        async with control.connect(Policy()) as data:
            first = await ask(data, "fine")
            with pytest.raises(EndpointLost, match=r"the server died over a request: it was ended by SIGKILL") as loss:
                await ask(data, "die")
            assert loss.value.blames_items
            with pytest.raises(EndpointLost) as late:
                await ask(data, "nobody is there")
            assert not late.value.blames_items
        assert await control.state() is EndpointState.PAUSED
        assert "was ended by SIGKILL (out of memory?)" in control.status_text
        assert (await wake(control))[-1] is EndpointState.AWAKE
        async with control.connect(Policy()) as data:
            assert (await ask(data, "again"))["pid"] != first["pid"]
            with pytest.raises(RequestFailed, match="a bug"):
                await ask(data, "fail")
            with pytest.raises(EndpointLost) as loss:  # a last answer, and then its end
                await ask(data, "fail and end")
            assert loss.value.blames_items


async def test_a_server_that_ends_between_two_requests_blames_no_item() -> None:
    async with replica_of(server()) as control:
        await wake(control)
        async with control.connect(Policy()) as data:
            pid = (await ask(data, "fine"))["pid"]
            os.kill(pid, signal.SIGKILL)
            await gone(pid)
            with anyio.fail_after(DEADLINE):
                while control.runs:
                    await anyio.sleep(0.02)
            with pytest.raises(EndpointLost, match="small: the server was ended by SIGKILL") as loss:
                await ask(data, "fine")
        assert not loss.value.blames_items


PARENT = """
import anyio, sys
from orchestrator.endpoints import LocalServer

async def main():
    endpoint = LocalServer(sys.argv[2:], name="small")
    async with endpoint.control() as control:
        await control.resume()
        while await control.state() != sys.argv[1]:
            await anyio.sleep(0.05)
        print(control.pid, flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


@pytest.mark.parametrize("state", ["starting", "awake"])
async def test_the_server_and_what_it_started_do_not_survive_a_killed_parent(tmp_path: Path, state: str) -> None:
    loads = ["--loads-until", str(tmp_path / "never")] if state == "starting" else []
    command = [sys.executable, "-c", PARENT, state, *PROGRAM, *loads, "--children", str(tmp_path / "children")]
    async with await anyio.open_process(command, cwd=ROOT, stderr=None) as parent:
        assert parent.stdout is not None
        with anyio.fail_after(DEADLINE):
            supervisor = int(await parent.stdout.receive())
        await there(tmp_path / "children")
        started = orjson.loads(await anyio.Path(tmp_path / "children").read_bytes())
        programs = psutil.Process(supervisor).children()
        parent.kill()
        await gone(supervisor, *(program.pid for program in programs), *started)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
async def test_the_server_does_not_survive_a_killed_supervisor() -> None:
    async with replica_of(server()) as control:
        await wake(control)
        supervisor = control.pid
        assert supervisor is not None
        (program,) = psutil.Process(supervisor).children()
        os.kill(supervisor, signal.SIGKILL)
        await gone(program.pid)
        with anyio.fail_after(DEADLINE):
            while await control.state() is not EndpointState.PAUSED:
                await anyio.sleep(0.05)


# -- what goes wrong while it starts -----------------------------------------------------------------------------------


async def last_words(endpoint: LocalServer) -> str:
    async with replica_of(endpoint) as control:
        assert (await wake(control))[-1] is EndpointState.FAILED
        assert not await control.answers()
        said = control.status_text
    assert "\n" not in said
    assert str(endpoint.log().path) in said
    return said


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB\nEngine core failed. See above.",
            "nvidia-smi",
        ),
        ("ModuleNotFoundError: No module named 'flashinfer'", "a package is missing"),
        ("importlib.metadata.PackageNotFoundError: No package metadata was found for vllm", "start its module"),
        ("RuntimeError: operator torchvision::nms does not exist", "uninstall it"),
        ("OSError: nobody/x is not a local folder and is not a valid model identifier", "check the model's name"),
        ("huggingface_hub.errors.GatedRepoError: 401 Client Error.", "set HF_TOKEN"),
        ("api_server.py: error: unrecognized arguments: --nonsense", "see its --help"),
        ("something else\nentirely", "its last words: entirely; its log"),
    ],
)
async def test_a_server_that_ends_while_it_starts_is_reported_with_a_remedy(words: str, remedy: str) -> None:
    said = await last_words(server("--fails-with", words))
    assert said.startswith("the server ended with exit code 1; its last words: ")
    assert remedy in said


async def test_a_command_that_goes_to_the_background_is_refused() -> None:
    assert "it must stay in the foreground" in await last_words(server("--ends"))


async def test_a_program_that_cannot_be_run_is_named(tmp_path: Path) -> None:
    broken = anyio.Path(tmp_path / "broken")
    await broken.write_bytes(b"\x7fELF no program")
    await broken.chmod(0o755)
    endpoint = LocalServer([str(broken), "{port}"], name="small")
    assert "cannot run" in await last_words(endpoint)


async def test_a_program_that_is_missing_is_named_before_anything_starts() -> None:
    with pytest.raises(UsageError, match=r"endpoint local:m: there is no program 'no-such-server'; install it"):
        async with LocalServer(["no-such-server", "{port}"], model="org/m").control():
            pass
    with pytest.raises(UsageError, match="set the environment variable NO_SUCH_TOKEN"):
        async with server(token_env="NO_SUCH_TOKEN").control():
            pass


async def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        endpoint = LocalServer([*PROGRAM[:-1], str(port)], f"http://127.0.0.1:{port}", name="small")
        async with replica_of(endpoint) as control:
            with pytest.raises(
                EndpointFailed, match=rf"port {port} of 127.0.0.1 is taken: stop the program that uses it"
            ):
                await control.resume()
    async with replica_of(endpoint) as control:
        assert (await wake(control))[-1] is EndpointState.AWAKE


async def test_if_another_process_takes_the_free_port_another_one_is_chosen(tmp_path: Path) -> None:
    words = "OSError: [Errno 98] Address already in use"
    async with replica_of(server("--fails-with", words, "--fails-unless", tmp_path / "second")) as control:
        assert (await wake(control))[-1] is EndpointState.AWAKE
    assert "its port is taken" in await last_words(server("--fails-with", words))  # not for ever


def test_invalid_settings_are_refused_when_the_job_is_read() -> None:
    wrong: Sequence[tuple[str, dict[str, Any]]] = (
        ("a list of arguments", {"command": "vllm serve"}),
        ("a list of arguments", {"command": []}),
        ("must be in both url and command", {"command": ["x"]}),
        ("must be in both url and command", {"command": ["x", "{port}"], "url": "http://h:1/"}),
        ("needs a URL", {"command": ["x", "{port}"], "url": "h:{port}"}),
        ("replicas must be at least 1", {"command": ["x", "{port}"], "replicas": 0}),
        ("one list for each replica", {"command": ["x", "{port}"], "replicas": 2, "gpus": [[0]]}),
        ("need a port each", {"command": ["x"], "url": "http://h:1/", "replicas": 2}),
        ("grace must be", {"command": ["x", "{port}"], "grace": -1}),
    )
    for said, settings in wrong:
        with pytest.raises(ValueError, match=said):
            LocalServer(**settings)


def test_the_identity_depends_on_the_model_and_wire_but_not_on_the_port(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"weights")
    (tmp_path / "elsewhere.gguf").write_bytes(b"weights")
    one, two = (server(model=str(tmp_path / name)).identity(Policy()) for name in ("m.gguf", "elsewhere.gguf"))
    assert one == two
    (tmp_path / "m.gguf").write_bytes(b"other weights")
    assert server(model=str(tmp_path / "m.gguf")).identity(Policy()) != one
    wired = server(model="org/m", wire=OpenAIChatWire("m"), replicas=3).identity(Policy())
    assert (wired["kind"], wired["model"], wired["wire_model"]) == ("local_server", "org/m", "m")
    assert server().identity(Policy())["model"] == list(PROGRAM)
    assert (LocalServer(["/opt/x", "{port}"]).name, LocalServer(["x", "{port}"], model="org/m").name) == (
        "local:x",
        "local:m",
    )


# -- replicas ----------------------------------------------------------------------------------------------------------


async def test_each_replica_is_a_member_with_its_own_gpus_and_log() -> None:
    endpoint = server(gpus=[[0], [1, "GPU-x"]])
    async with replicas_of(endpoint) as control:
        assert isinstance(control, HasMembers)
        assert [member.name for member in control.present] == ["small replica 1", "small replica 2"]
        seen = []
        for member in control.present:
            assert (await wake(member))[-1] is EndpointState.AWAKE
            async with member.connect(Policy()) as data:
                seen.append((await ask(data, "fine"))["gpus"])
        assert seen == ["0", "1,GPU-x"]
        assert await control.state() is EndpointState.AWAKE
        assert control.status_text == "2 of 2 members awake"
    assert endpoint.log(2).path.name == "small-2.log"


async def test_replicas_as_a_whole_are_awake_as_soon_as_one_is_and_lost_once_all_are(tmp_path: Path) -> None:
    endpoint = server("--loads-until", tmp_path / "never", "--only-on", "1", gpus=[[0], [1]])
    async with replicas_of(endpoint) as control:
        assert (await wake(control))[-1] is EndpointState.AWAKE
        with anyio.fail_after(DEADLINE):
            while control.status_text != "1 of 2 members awake; small replica 2: loading: loading weights: 50%":
                assert await control.state() is EndpointState.AWAKE
                await anyio.sleep(0.02)
        async with control.connect(Policy()) as data:
            os.kill((await ask(data, "fine"))["pid"], signal.SIGKILL)
            with anyio.fail_after(DEADLINE):
                while await control.state() is EndpointState.AWAKE:
                    await anyio.sleep(0.02)
            with pytest.raises(EndpointLost, match="was ended by SIGKILL"):
                await ask(data, "fine")
        with pytest.raises(EndpointLost, match="no member is awake"):
            async with control.connect(Policy()):
                pass


async def test_a_time_out_of_a_live_server_fails_only_that_request(tmp_path: Path) -> None:
    async with replica_of(server("--hold-until", tmp_path / "never", "--begun", tmp_path / "begun")) as control:
        await wake(control)
        async with control.connect(Policy(timeout=0.5)) as data:
            with pytest.raises(RequestFailed, match="no complete answer"):
                await ask(data, "hold")
            assert (await ask(data, "fine"))["inputs"] == "fine"
