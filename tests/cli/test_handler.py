"""`orchestrator handler`: new, check and serve, with handlers in real processes and real requests."""

from __future__ import annotations

import gzip
import http.client
import io
import os
import re
import signal
import socket
import threading
import urllib.error
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import orjson
import psutil
import pytest

pytest.importorskip("PIL", reason="needs the `local` extra")

from PIL import Image

from tests.commands import until
from tests.handlers import handler, written

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.commands import Ended, Running, Workplace

STEPS = ["import", "init", "read", "call", "json", "hub"]
ASYNC = """
class EndpointHandler:
    def __init__(self, path=""): pass
    async def __call__(self, data): return data
"""


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", (3, 2)).save(buffer, "PNG")
    return buffer.getvalue()


# -- check ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(workplace: Workplace) -> Path:
    return workplace.folder / "model"


def checked(
    workplace: Workplace, folder: Path, payload: str, *options: str
) -> tuple[Ended, dict[str, tuple[str, str]]]:
    """Return how the command ended, and each step's verdict and message."""
    ended = workplace.run("handler", "check", folder, "--payload", payload, "--json", *options)
    steps = {step["name"]: (step["verdict"], step["said"]) for step in ended.json["steps"]}
    assert ended.json["ok"] == all(verdict == "ok" for verdict, _ in steps.values())
    assert ended.code == (0 if ended.json["ok"] else 1)
    return ended, steps


def test_a_good_handler_passes_every_step_and_its_output_is_not_in_the_report(
    workplace: Workplace, folder: Path
) -> None:
    handler(folder, "print('hello', data.pop('inputs')); return {'a': 1}")
    ended, steps = checked(workplace, folder, '{"inputs": "x", "date": "2026-12-25"}')
    assert list(steps) == STEPS
    assert steps["read"] == ("ok", "inputs: str, date")
    assert steps["json"] == ("ok", '{"a":1}')
    assert ended.err == "hello x\n"
    plain = workplace.run("handler", "check", folder, "--payload", '"x"')
    assert plain.code == 0
    assert [line.split()[:2] for line in plain.out.splitlines()] == [[step, "ok"] for step in STEPS]


@pytest.mark.parametrize(
    ("source", "payload", "step", "words"),
    [
        ("class Handler: pass", '"x"', "import", "the class must have this name"),
        ("class EndpointHandler:\n def __init__(self): pass", '"x"', "init", "with a signature of ()"),
        ("import no_such_package", '"x"', "import", "'no_such_package', which is not installed"),
        ("class EndpointHandler:\n def __init__(self, p): pass\n def __call__(self, d): 1/0", '"x"', "call", "line 3)"),
        (
            "class EndpointHandler:\n def __init__(self, p): pass\n def __call__(self, d): raise ValueError('no')",
            '"x"',
            "call",
            "bad input: ValueError: no",
        ),
        (
            "class EndpointHandler:\n def __init__(self, p): pass\n def __call__(self, d): return {1}",
            '"x"',
            "json",
            "set",
        ),
        (
            (
                "import ctypes\nclass EndpointHandler:\n def __init__(self, p): pass\n"
                " def __call__(self, d): ctypes.string_at(0)"
            ),
            '"x"',
            "call",
            "was ended by SIGSEGV",
        ),
        (
            (
                "class EndpointHandler:\n max_batch_size = 2\n def __init__(self, p): pass\n"
                " def __call__(self, d): return {'label': 1}"
            ),
            '"x"',
            "list",
            "a list of one input needs a list of one answer",
        ),
    ],
)
def test_the_failing_step_gives_the_reason_and_later_steps_are_skipped(
    workplace: Workplace, folder: Path, source: str, payload: str, step: str, words: str
) -> None:
    written(folder, source)
    _, steps = checked(workplace, folder, payload)
    (failed,) = [name for name, (verdict, _) in steps.items() if verdict == "failed"]
    assert failed == step
    assert words in steps[step][1]
    after = list(steps)[list(steps).index(step) + 1 :]
    assert {steps[name][0] for name in after} <= {"not tried"}


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        (ASYNC, (), "async __call__ is not awaited there"),
        (ASYNC.replace("async ", ""), ("--content-type", "application/json; charset=utf-8"), "compared literally"),
        (f"import anyio\n{ASYNC.replace('async ', '')}", (), "'anyio' (handler.py, line 1) is neither in requirements"),
    ],
)
def test_code_that_runs_here_but_would_fail_on_hugging_face_is_reported_with_the_reason(
    workplace: Workplace, folder: Path, source: str, options: tuple[str, ...], words: str
) -> None:
    written(folder, source)
    _, steps = checked(workplace, folder, '{"inputs": "x"}', *options)
    assert {name for name, (verdict, _) in steps.items() if verdict == "failed"} == {"hub"}
    assert words in steps["hub"][1]


def test_a_listed_requirement_and_a_module_beside_the_handler_raise_no_finding(
    workplace: Workplace, folder: Path
) -> None:
    written(folder, f"import PIL, numpy, anyio, beside\n{ASYNC.replace('async ', '')}", "AnyIO>=4  # tasks\n")
    (folder / "beside.py").write_text("import json")
    assert checked(workplace, folder, '"x"')[1]["hub"][0] == "ok"


def test_a_file_can_be_a_payload(workplace: Workplace, folder: Path) -> None:
    handler(folder, "return data['inputs'].mode")
    (workplace.folder / "a.png").write_bytes(png())
    assert checked(workplace, folder, "@a.png")[1]["json"] == ("ok", '"RGB"')


def test_a_hanging_handler_is_killed(workplace: Workplace, folder: Path) -> None:
    handler(folder, "import time; time.sleep(600)")
    _, steps = checked(workplace, folder, '"x"', "--timeout", "3")
    assert steps["call"] == ("failed", "no result within 3 s (--timeout)")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("check", "absent", "--payload", "1"), "there is no handler.py in absent"),
        (("check", "model", "--payload", "no json"), "--payload is not JSON"),
        (("check", "model", "--payload", "@absent.png"), "there is no file"),
        (("serve", "absent"), "there is no handler.py in absent"),
    ],
)
def test_invalid_options_of_check_are_refused(
    workplace: Workplace, folder: Path, arguments: tuple[str, ...], words: str
) -> None:
    handler(folder, "return 1")
    ended = workplace.run("handler", *arguments)
    assert ended.code == 2
    assert words in ended.line


# -- new --------------------------------------------------------------------------------------------------------------


def test_a_new_handler_passes_its_check_and_is_not_overwritten(workplace: Workplace, folder: Path) -> None:
    made = workplace.run("handler", "new", folder)
    assert made.code == 0
    assert f"orchestrator handler check {folder}" in made.out.replace("\n", "")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "handler.py", "requirements.txt"]
    assert checked(workplace, folder, '{"inputs": "three little words"}')[1]["json"] == ("ok", '{"words":3}')
    assert checked(workplace, folder, "5")[1]["call"][1].startswith("bad input: ValueError: inputs must be a text")
    (folder / "requirements.txt").unlink()
    again = workplace.run("handler", "new", folder)
    assert again.code == 2
    assert "already has handler.py, README.md, which would be overwritten" in again.line
    assert not (folder / "requirements.txt").exists()


TOKEN = "t0ken-of-the-test"

# -- serve ------------------------------------------------------------------------------------------------------------


@contextmanager
def serving(workplace: Workplace, folder: Path, *options: str) -> Iterator[tuple[str, Running]]:
    """Yield the address once it is served; the output is read continuously."""
    command = ["handler", "serve", str(folder), "--port", "0", "--token-env", "SERVE_TOKEN", *options]
    with workplace.start(*command, env={"SERVE_TOKEN": TOKEN}) as running:
        assert running.process.stdout is not None
        assert running.process.stderr is not None
        line = running.process.stdout.readline()
        found = re.fullmatch(r"serving on (http://\S+)\n", line)
        assert found, line + running.process.stderr.read()
        threading.Thread(target=running.process.stderr.read, daemon=True).start()
        yield found[1], running


def asked(url: str, body: bytes | None = None, token: str = TOKEN, **headers: str) -> tuple[int, str, Any]:
    """Return status, content type and body, decoded if it is JSON."""
    named = {"Authorization": f"Bearer {token}"} | {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, body, named)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            status, kind, content = response.status, response.headers["Content-Type"], response.read()
    except urllib.error.HTTPError as error:
        status, kind, content = error.code, error.headers["Content-Type"], error.read()
    return status, kind, orjson.loads(content) if kind == "application/json" else content


JSON = "application/json"
SERVED = """
import sys
from PIL import Image
class EndpointHandler:
    def __init__(self, path=""): pass
    def __call__(self, data):
        x = data.get("inputs")
        print("z" * 200_000, file=sys.stderr)
        if x == "bug": return data["date"]
        if x == "bad": raise ValueError("no")
        if x == "exit": raise SystemExit(3)
        if x == "image": return Image.new("RGB", (3, 2))
        if isinstance(x, Image.Image): return [x.mode, *x.size]
        if isinstance(x, bytes): return len(x)
        return data
"""


def test_the_routes_match_the_toolkit(workplace: Workplace, folder: Path) -> None:
    written(folder, SERVED)
    with serving(workplace, folder) as (url, running):

        def post(body: object, content_type: str = JSON, path: str = "/", **headers: str) -> tuple[int, Any]:
            content = body if isinstance(body, bytes) else orjson.dumps(body)
            status, kind, answer = asked(url + path, content, Content_Type=content_type, **headers)
            assert kind in {headers.get("Accept"), JSON}
            return status, answer

        for path in ("/", "/health"):
            status, kind, body = asked(url + path)
            assert (status, kind.partition(";")[0], body) == (200, "text/plain", b"Ok")
        whole = {"inputs": ["a"], "date": "2026-12-25"}
        assert post(whole) == post(whole, path="/predict") == (200, whole)
        assert post({"instances": [1]}) == (200, {"instances": [1]})
        assert asked(f"{url}/metrics")[0] == 404
        # the query string
        query = "/?top_k=3&exact=true&t=0.5"
        assert post(whole, path=query) == (200, whole | {"parameters": {"top_k": 3, "exact": True, "t": "0.5"}})
        own: dict[str, Any] = whole | {"parameters": {}}
        assert post(own, path=query) == (200, own)
        # content types
        for kind in ("application/json; charset=UTF-8", "application/json; charset=utf-8", "Application/JSON"):
            assert post(whole, kind) == (200, whole)
        assert post(png(), "image/png") == post(png(), "image/x-other") == (200, ["RGB", 3, 2])
        for kind in ("audio/wav", "audio/mp3", "application/pdf", "application/octet-stream"):
            assert post(b"RIFF", kind) == (200, 4)
        for kind in ("text/plain", "text/csv", "application/x-www-form-urlencoded", ""):
            assert post(whole, kind)[0] == 400
        assert post(b"no image", "image/png") == (400, {"error": "the body: not an image that can be read"})
        for body in (b"", b"{", b"[]", b'{"text": 1}', b'"text"'):
            assert post(body)[0] == 400
        # Accept
        for accept in (
            "*/*",
            "application/json, text/plain, */*",
            "text/html, */*;q=0.1",
            "",
            f"{JSON}; charset=latin-1",
        ):
            assert post(whole, Accept=accept)[0] == 200
        assert post(whole, Accept="text/plain")[0] == 400
        status, kind, content = asked(f"{url}/", b'{"inputs": "image"}', Content_Type=JSON, Accept="image/jpeg")
        assert (status, kind, Image.open(io.BytesIO(content)).format) == (200, "image/jpeg", "JPEG")
        assert post(whole, Accept="image/png")[0] == 500  # it does not answer with an image
        for name, form in (("jpg", "JPEG"), ("x-image", "PNG")):
            _, kind, content = asked(f"{url}/", b'{"inputs": "image"}', Content_Type=JSON, Accept=f"image/{name}")
            assert (kind, Image.open(io.BytesIO(content)).format) == (f"image/{name}", form)
        assert isinstance(post({"inputs": "image"})[1], str)
        # which side was at fault
        assert post({"inputs": "bug"}) == (500, {"error": "KeyError: 'date' (handler.py, line 9)"})
        assert post({"inputs": "bad"}) == (400, {"error": "ValueError: no (handler.py, line 10)"})
        assert post({"inputs": "exit"})[0] == 500
        assert post(whole)[0] == 200
        # it ends with the command
        (worker,) = psutil.Process(running.pid).children()
        running.send(signal.SIGINT)
        until(lambda: running.process.poll() is not None)
        assert running.process.returncode == 130
        assert not psutil.pid_exists(worker.pid)


def test_compressed_bodies_are_read_and_damaged_ones_refused(workplace: Workplace, folder: Path) -> None:
    written(folder, SERVED)
    body = b'{"inputs": "a"}'
    with serving(workplace, folder) as (url, _):

        def post(content: bytes, encoding: str) -> tuple[int, Any]:
            status, kind, answer = asked(url, content, Content_Type=JSON, Content_Encoding=encoding)
            assert kind == JSON
            return status, answer

        for encoding, packed in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body))):
            assert post(packed, encoding) == post(packed, encoding.upper()) == (200, {"inputs": "a"})
            for damaged in (packed[:-6], packed[: len(packed) // 2] + b"!" * 8, body):
                status, answer = post(damaged, encoding)
                assert (status, answer["error"][: len(f"the body is not {encoding}")]) == (
                    400,
                    f"the body is not {encoding}",
                )
        assert post(body, "identity") == (200, {"inputs": "a"})
        assert post(body, "br") == (400, {"error": "Content-Encoding: br is not taken; there is gzip and deflate"})


def test_a_trailing_slash_is_redirected_as_in_the_toolkit(workplace: Workplace, folder: Path) -> None:
    written(folder, SERVED)
    with serving(workplace, folder) as (url, _):
        for method, path, to in (("POST", "/predict/?top_k=3", "/predict?top_k=3"), ("GET", "/health/", "/health")):
            connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
            connection.request(method, path, b"{}" if method == "POST" else None)
            response = connection.getresponse()
            assert (response.status, response.headers["Location"]) == (307, to)
            connection.close()
        assert asked(f"{url}/health/")[2] == b"Ok"
        assert asked(f"{url}/metrics/")[0] == 404


BUSY = """
import os, time
class EndpointHandler:
    inside = 0
    def __init__(self, path=""):
        self.gate = os.path.join(path, "gate")
    def __call__(self, data):
        EndpointHandler.inside += 1
        seen = EndpointHandler.inside
        open(os.path.join(os.path.dirname(self.gate), "called"), "w").close()
        while not os.path.exists(self.gate):
            time.sleep(0.01)
        EndpointHandler.inside -= 1
        return seen
"""


def test_calls_run_one_at_a_time_while_health_still_answers(workplace: Workplace, folder: Path) -> None:
    written(folder, BUSY)
    with serving(workplace, folder) as (url, _), ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(asked, f"{url}/", b'{"inputs": 1}', Content_Type=JSON) for _ in range(4)]
        until((folder / "called").exists)
        assert asked(f"{url}/health")[2] == b"Ok"
        assert not any(call.done() for call in calls)
        (folder / "gate").touch()
        assert [call.result()[2] for call in calls] == [1, 1, 1, 1]


LOADING = """
import os, time
class EndpointHandler:
    def __init__(self, path=""):
        while not os.path.exists(os.path.join(path, "gate")):
            time.sleep(0.01)
    def __call__(self, data): return 1
"""


def test_a_handler_that_is_still_loading_answers_503(workplace: Workplace, folder: Path) -> None:
    written(folder, LOADING)
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        url = f"http://127.0.0.1:{chosen.getsockname()[1]}"
    statuses: list[int] = []

    def refused() -> bool:
        with suppress(urllib.error.URLError, ConnectionError):
            statuses.extend((asked(f"{url}/health")[0], asked(f"{url}/", b'{"inputs": 1}', Content_Type=JSON)[0]))
        return bool(statuses)

    command = ("handler", "serve", folder, "--port", url.rpartition(":")[2], "--token-env", "SERVE_TOKEN")
    with workplace.start(*command, env={"SERVE_TOKEN": TOKEN}) as running:
        until(refused)
        assert statuses == [503, 503]
        (folder / "gate").touch()
        assert running.process.stdout is not None
        assert running.process.stdout.readline() == f"serving on {url}\n"
        assert asked(f"{url}/", b'{"inputs": 1}', Content_Type=JSON)[::2] == (200, 1)


def test_requests_without_the_token_are_refused(workplace: Workplace, folder: Path) -> None:
    handler(
        folder, "return [data['inputs'], *(name for name in os.environ if name.endswith('TOKEN'))]", top="import os"
    )
    with serving(workplace, folder) as (url, _):
        for wrong in ("", "another", TOKEN[:-1]):
            status, _, answer = asked(f"{url}/predict", b'{"inputs": 1}', wrong, Content_Type=JSON)
            assert (status, "Authorization: Bearer TOKEN" in answer["error"]) == (401, True)
        assert asked(f"{url}/health", None, "")[0] == 200
        assert asked(f"{url}/", b'{"inputs": 1}', Content_Type=JSON)[::2] == (200, [1])


def test_a_token_is_generated_and_shown_if_none_is_set(workplace: Workplace, folder: Path) -> None:
    handler(folder, "return 1")
    with workplace.start("handler", "serve", folder, "--port", "0") as running:
        assert running.process.stdout is not None
        url = running.process.stdout.readline().removeprefix("serving on ").strip()
        shown = running.process.stdout.readline()
        token = shown.removeprefix("requests need the header Authorization: Bearer ").strip()
        assert len(token) > 30
        assert asked(f"{url}/", b'{"inputs": 1}', token, Content_Type=JSON)[::2] == (200, 1)
        assert asked(f"{url}/", b'{"inputs": 1}', Content_Type=JSON)[0] == 401
    assert workplace.run("handler", "serve", folder, "--token-env", "NO_SUCH").code == 2


def test_the_command_ends_with_the_reason_if_the_handler_dies(workplace: Workplace, folder: Path) -> None:
    handler(folder, "ctypes.string_at(0)", top="import ctypes")
    with serving(workplace, folder) as (url, running):
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            asked(f"{url}/", b'{"inputs": 1}', Content_Type=JSON)
        until(lambda: running.process.poll() is not None)
        assert running.process.returncode == 1


def test_a_handler_that_cannot_be_served_is_reported_in_one_line(workplace: Workplace, folder: Path) -> None:
    written(folder, "1 / 0")
    ended = workplace.run("handler", "serve", folder, "--port", "0")
    assert ended.code == 1
    assert ended.line.endswith(
        "handler.py cannot be imported: ZeroDivisionError: division by zero (handler.py, line 1)"
    )
    handler(folder, "return 1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = workplace.run("handler", "serve", folder, "--port", str(taken.getsockname()[1]))
    assert ended.code == 1
    assert "address already in use" in ended.line


def test_a_killed_command_leaves_no_worker(workplace: Workplace, folder: Path) -> None:
    handler(folder, "return 1")
    with serving(workplace, folder) as (_, running):
        (worker,) = psutil.Process(running.pid).children()
        os.kill(running.pid, signal.SIGKILL)
        until(lambda: not psutil.pid_exists(worker.pid))
