"""Folders with a handler.py, in real worker processes: what the Hugging Face toolkit does, and where we are kinder."""

from __future__ import annotations

import base64
import hashlib
import io
import os
from typing import TYPE_CHECKING, Any

import anyio
import orjson
import psutil
import pytest

pytest.importorskip("PIL", reason="needs the `local` extra")

from PIL import Image

from orchestrator.domain.batching import Limits
from orchestrator.domain.errors import EndpointLost, RequestFailed, UsageError
from orchestrator.domain.policy import Policy
from orchestrator.endpoints import LocalEndpoint
from orchestrator.endpoints.local_control import LocalControl
from tests.commands import DEADLINE
from tests.handlers import answers, awake, endpoint_of, handler, last_words, written

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commands import Workplace

ECHO = "return data"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "model"


def stored(path: Path, content: bytes, content_type: str) -> dict[str, str]:
    path.write_bytes(content)
    return {"$file": str(path), "sha256": hashlib.sha256(content).hexdigest(), "content_type": content_type}


def png(mode: str = "RGBA") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (3, 2)).save(buffer, "PNG")
    return buffer.getvalue()


# -- what a handler is given ------------------------------------------------------------------------------------------


async def test_a_bare_input_becomes_inputs_and_an_object_with_inputs_is_passed_unchanged(folder: Path) -> None:
    handler(folder, ECHO)
    whole = {"inputs": [1, 2], "date": "2026-12-25", "parameters": {"top_k": 1}}
    assert await answers(folder, "text", ["a"], {"question": "why"}, whole) == [
        {"inputs": "text"},
        {"inputs": ["a"]},
        {"inputs": {"question": "why"}},
        whole,
    ]


async def test_the_requests_parameters_override_the_endpoints(folder: Path) -> None:
    handler(folder, "data['parameters']['seen'] = True; return data['parameters']")
    found = await answers(
        folder, "a", {"inputs": "b", "parameters": {"top_k": 1}}, "c", parameters={"top_k": 5, "x": 0}
    )
    seen = {"x": 0, "seen": True}
    assert found == [{"top_k": 5, **seen}, {"top_k": 1, **seen}, {"top_k": 5, **seen}]


async def test_an_image_is_rgb_a_recording_is_bytes_and_beside_other_keys_both_are_base64(
    folder: Path, tmp_path: Path
) -> None:
    handler(folder, "x = data['inputs']; return [type(x).__name__, getattr(x, 'mode', '')]")
    image = stored(tmp_path / "a.png", png(), "image/png")
    sound = stored(tmp_path / "a.wav", b"RIFF", "audio/wav")
    broken = stored(tmp_path / "b.png", b"no image", "image/png")
    changed = {**sound, "sha256": "0" * 64}
    *found, bad, gone = await answers(
        folder, image, {"inputs": image}, sound, {"inputs": sound, "parameters": {}}, broken, changed
    )
    assert found == [["Image", "RGB"], ["Image", "RGB"], ["bytes", ""], ["str", ""]]
    assert bad == ("rejected", "b.png: not an image that can be read")
    assert gone == ("rejected", "a.wav: file changed since it was ingested")


async def test_base64_beside_parameters_is_decoded_if_the_task_takes_recordings(folder: Path) -> None:
    handler(folder, "return data['inputs'].decode()")
    text = base64.b64encode(b"sound").decode()
    request: dict[str, Any] = {"inputs": text, "parameters": {"x": 1}}
    good, bad = await answers(
        folder, request, {**request, "inputs": "?"}, task="automatic-speech-recognition", trust_remote_code=True
    )
    assert good == "sound"
    assert isinstance(bad, tuple)
    assert bad[0] == "rejected"


async def test_it_is_created_once_with_its_folder_first_on_the_path_and_the_toolkits_variables(folder: Path) -> None:
    handler(
        folder,
        "import os, sys; self.calls += 1; return [MADE, self.calls, sys.path[0], os.environ['HF_MODEL_DIR'],"
        " os.environ['HF_TASK'], __name__]",
        top="from beside import MADE",
        start="self.calls = 0; MADE.append(path)",
    )
    (folder / "beside.py").write_text("MADE = []")
    (folder / "config.json").write_text("{}")  # a handler wins over the task
    first, second = await answers(folder, "a", "b", task="text-classification", trust_remote_code=True)
    assert first == [[str(folder)], 1, str(folder), str(folder), "text-classification", "handler.EndpointHandler"]
    assert second == [[str(folder)], 2, *first[2:]]


async def test_no_variable_names_another_file_or_class(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handler(folder, "return 'handler.py'")
    await anyio.Path(folder / "other.py").write_text("class Other: pass")
    monkeypatch.setenv("HF_DEFAULT_PIPELINE_NAME", "other.py")
    monkeypatch.setenv("HF_MODULE_NAME", "other.Other")
    assert await answers(folder, "x") == ["handler.py"]


async def test_modules_that_the_endpoint_imports_are_imported_before_the_handler(folder: Path, tmp_path: Path) -> None:
    handler(folder, "return 'of_mine' in WERE", top="import sys; WERE = set(sys.modules)")
    own = anyio.Path(tmp_path / "of_mine.py")
    await own.write_text("")
    assert await answers(folder, "x") == [False]
    assert await answers(folder, "x", imports=[str(own)]) == [True]


async def test_it_replaces_a_task_only_if_its_code_is_trusted(folder: Path) -> None:
    handler(folder, ECHO)
    with pytest.raises(UsageError, match=r"has a handler\.py.*set trust_remote_code=True.*or remove handler\.py from"):
        await endpoint_of(folder, task="text-classification")


async def test_it_gets_no_secret_that_is_not_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {"HF_TOKEN": "hf_x", "AWS_SECRET_ACCESS_KEY": "x", "DATABASE_URL": "postgres://me:pw@db/x", "MY_KEY": "k"}
    for name, value in {**secrets, "MY_SETTING": "5"}.items():
        monkeypatch.setenv(name, value)
    handler(folder, "return {name: os.environ.get(name) for name in data['inputs']}", top="import os")
    asked = [*secrets, "MY_SETTING", "PATH"]
    seen = dict.fromkeys(secrets) | {"MY_SETTING": "5", "PATH": os.environ["PATH"]}
    assert await answers(folder, asked) == [seen]
    assert await answers(folder, asked, pass_env=["MY_KEY"]) == [seen | {"MY_KEY": "k"}]


# -- what it may answer -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("(1, 2)", [1, 2]),
        ("numpy.arange(2)", [0, 1]),
        ("numpy.float32(0.5)", 0.5),
        ("[float('nan'), float('inf')]", [None, None]),
        ("None", None),
        ("datetime.date(2026, 12, 25)", "2026-12-25"),
    ],
)
async def test_answers_are_written_as_the_toolkit_writes_them(folder: Path, expression: str, answer: object) -> None:
    handler(folder, f"return {expression}", top="import datetime, numpy")
    assert await answers(folder, "x") == [answer]


async def test_an_image_is_answered_as_base64_of_a_png(folder: Path) -> None:
    handler(folder, "return [Image.new('L', (3, 2))]", top="from PIL import Image")
    ((text,),) = await answers(folder, "x")
    assert Image.open(io.BytesIO(base64.b64decode(text))).format == "PNG"


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("{1}", "set; make it a list"),
        ("[(x for x in 'ab')]", "generator; make it a list"),
        ("b'x'", "bytes; write it in base64"),
        ("{1: 2}", "Dict key must be str"),
        ("object()", "object"),
    ],
)
async def test_an_answer_that_the_toolkit_cannot_write_is_refused_with_a_remedy(
    folder: Path, expression: str, words: str
) -> None:
    handler(folder, f"return {expression}")
    ((kind, message),) = await answers(folder, "x")
    assert kind == "bad_answer"
    assert words in message


async def test_async_calls_are_always_awaited_in_the_same_event_loop(folder: Path) -> None:
    source = """
    import asyncio
    class EndpointHandler:
        def __init__(self, path=""):
            self.loops = set()
        async def __call__(self, data):
            await asyncio.sleep(0)
            self.loops.add(asyncio.get_running_loop())
            return [data["inputs"], len(self.loops)]
    """
    assert await answers(written(folder, source), "a", "b") == [["a", 1], ["b", 1]]


# -- what goes wrong --------------------------------------------------------------------------------------------------

TROUBLE = """
x = data["inputs"]
if x == "bug":
    return data["date"]
if x == "bad":
    raise ValueError("no such city")
if x == "exit":
    raise SystemExit(3)
if x == "net":
    raise ConnectionError("refused")
return x
"""


async def test_bugs_bad_input_and_problems_elsewhere_are_distinguished_and_name_the_line(folder: Path) -> None:
    handler(folder, TROUBLE)
    assert await answers(folder, "fine", "bug", "bad", "exit", "net", "fine, too") == [
        "fine",
        ("dubious", "KeyError: 'date' (handler.py, line 11)"),
        ("rejected", "ValueError: no such city (handler.py, line 13)"),
        ("dubious", "SystemExit: 3 (handler.py, line 15)"),
        ("unavailable", "ConnectionError: refused (handler.py, line 17)"),
        "fine, too",
    ]


async def test_the_line_is_in_the_handler_however_deep_the_error_is_raised(folder: Path) -> None:
    handler(folder, "return orjson.loads(data['inputs'])", top="import orjson")
    (folder / "beside.py").write_text("")
    ((kind, words),) = await answers(folder, "{")
    assert kind == "rejected"
    assert words.endswith("(handler.py, line 8)")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("class Handler: pass", "no class EndpointHandler (it has Handler)"),
        ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero (handler.py, line 1)"),
        ("x = (", "cannot be imported: SyntaxError"),
        ("class EndpointHandler:\n    def __init__(self): pass", "as EndpointHandler(path), with a signature of ()"),
        (
            "class EndpointHandler:\n    def __init__(self, path): self.x = {}['weights']",
            "cannot be made: KeyError: 'weights' (handler.py, line 2)",
        ),
        ("class EndpointHandler:\n    def __init__(self, path): pass", "no __call__(self, data)"),
        ("import sys; sys.exit('no licence')", "cannot be imported: SystemExit: no licence"),
        (
            (
                "class EndpointHandler:\n    max_batch_size = 0\n    def __init__(self, path): pass\n"
                "    def __call__(self, data): pass"
            ),
            "max_batch_size must be a whole number of at least 1, not 0",
        ),
    ],
)
async def test_a_handler_that_cannot_be_served_says_why_in_one_line(folder: Path, source: str, words: str) -> None:
    said = await last_words(written(folder, source))
    assert words in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("requirements", "words"),
    [
        (
            "no_such_package>=1\n",
            "'no_such_package', which is not installed: set install_requirements=True in LocalEndpoint",
        ),
        ("another\n", "name it in requirements.txt (which does not, unless by another name), and set install"),
        (None, "name it in a requirements.txt beside the handler, and set install_requirements=True"),
    ],
)
async def test_a_missing_package_is_named_with_the_setting_that_installs_it(
    folder: Path, requirements: str | None, words: str
) -> None:
    written(folder, "import no_such_package", requirements)
    assert words in await last_words(folder)
    written(folder, "class EndpointHandler:\n    def __init__(self, path): import no_such_package", requirements)
    assert words in await last_words(folder)


async def test_a_package_that_is_missing_in_a_call_is_also_named(folder: Path) -> None:
    handler(folder, "import no_such_package")
    ((kind, words),) = await answers(folder, "x")
    assert kind == "dubious"
    assert "'no_such_package', which is not installed" in words


async def test_a_call_that_runs_out_of_memory_fails_and_the_next_one_does_not(folder: Path) -> None:
    pytest.importorskip("torch", reason="needs the `local` extra")
    call = "if data['inputs'] == 'large': raise torch.OutOfMemoryError('CUDA out of memory.')\nreturn 1"
    handler(folder, call, top="import torch")
    small, (kind, words), again = await answers(folder, "a", "large", "b")
    assert (small, again) == (1, 1)
    assert kind == "dubious"
    assert words == "OutOfMemoryError: CUDA out of memory. (handler.py, line 8)"


async def test_a_handler_that_prints_a_lot_does_not_block(folder: Path) -> None:
    handler(folder, "print('x' * 5_000_000); print('y' * 5_000_000, file=sys.stderr); return 1", top="import sys")
    with anyio.fail_after(DEADLINE):
        assert await answers(folder, *"abc") == [1, 1, 1]


async def test_a_handler_that_kills_its_process_loses_the_endpoint_over_that_request(folder: Path) -> None:
    handler(folder, "return ctypes.string_at(0) if data['inputs'] == 'segfault' else 1", top="import ctypes")
    async with awake(await endpoint_of(folder)) as model:
        assert await model.ask([b'"fine"']) == [1]
        with pytest.raises(EndpointLost) as loss:
            await model.ask([b'"segfault"'])
    assert loss.value.blames_items


# -- lists ------------------------------------------------------------------------------------------------------------

BATCH = """
texts = data.pop("inputs")
if "bug" in texts:
    1 / 0
return [[text, len(texts), data] for text in texts]
"""


async def test_one_call_is_one_request_unless_the_handler_declares_that_it_takes_lists(folder: Path) -> None:
    handler(folder, ECHO)
    async with awake(await endpoint_of(folder)) as model:
        assert model.limits.items == 1
    async with awake(await endpoint_of(folder), Policy(batch_size=8)) as model:
        assert model.limits.items == 8  # the handler is called for each, all the same
        assert await model.ask([b'"a"', b'"b"']) == [{"inputs": "a"}, {"inputs": "b"}]
    handler(folder, BATCH, attributes="max_batch_size = 4")
    async with awake(await endpoint_of(folder)) as model:
        assert model.limits == Limits(4)  # of neighbours in length: it may well pad them


async def test_a_list_has_inputs_with_the_same_other_keys_and_no_more_than_declared(folder: Path) -> None:
    handler(folder, BATCH, attributes="max_batch_size = 2")
    other = {"inputs": "c", "parameters": {"x": 1}}
    assert await answers(folder, "a", other, "b", "d") == [
        ["a", 2, {}],
        ["c", 1, {"parameters": {"x": 1}}],
        ["b", 2, {}],
        ["d", 1, {}],
    ]


async def test_a_body_with_instances_instead_of_inputs_is_not_part_of_a_list(folder: Path, tmp_path: Path) -> None:
    handler(folder, "return data.get('instances', data.get('inputs'))", attributes="max_batch_size = 2")
    vertex = stored(tmp_path / "a.json", b'{"instances": [1]}', "application/json")
    assert await answers(folder, "a", vertex, "b") == ["a", [1], "b"]


async def test_an_input_that_fails_a_list_is_found_and_the_others_are_answered(folder: Path) -> None:
    handler(folder, BATCH, attributes="max_batch_size = 8")
    *good, bug, last = await answers(folder, "a", "b", "c", "bug", "d")
    assert [entry[0] for entry in (*good, last)] == ["a", "b", "c", "d"]
    assert bug == ("dubious", "ZeroDivisionError: division by zero (handler.py, line 11)")


@pytest.mark.parametrize("attributes", ["pass", "max_batch_size = 8"])
async def test_an_error_or_a_request_that_json_cannot_express_fails_only_its_own_input(
    folder: Path, attributes: str
) -> None:
    call = """
    if "bug" in data["inputs"]:
        raise RuntimeError("half a pair: \\ud83d")
    return data["inputs"]
    """
    handler(folder, call, attributes=attributes)
    deep = b'{"inputs":"b","parameters":' + b'{"x":' * 500 + b"1" + b"}" * 501
    async with awake(await endpoint_of(folder), Policy(batch_size=8)) as model:
        first, bug, _, last = await model.ask([b'"a"', b'"bug"', deep, b'"c"'])
    assert (first, last) == ("a", "c")
    assert isinstance(bug, RequestFailed)
    assert (str(bug.kind), bug.message) == ("dubious", "RuntimeError: half a pair: ? (handler.py, line 10)")


async def test_a_list_of_another_length_is_the_handlers_bug(folder: Path) -> None:
    handler(folder, "return {'label': 'x'}", attributes="max_batch_size = 8")
    for kind, words in await answers(folder, "a", "b"):
        assert kind == "dubious"
        assert "a handler with max_batch_size answers a list, one for each input: a dict for 1" in words


# -- the endpoint -----------------------------------------------------------------------------------------------------


def test_a_folder_needs_a_handler_or_a_task(folder: Path) -> None:
    handler(folder, ECHO)
    assert LocalEndpoint(str(folder)).name == "local:model"
    (folder / "handler.py").unlink()
    (folder / "pipeline.py").write_text("class PreTrainedPipeline: pass")  # the toolkit's older form
    with pytest.raises(UsageError, match=r"no config\.json in this folder, and no handler\.py"):
        LocalEndpoint(str(folder))
    with pytest.raises(UsageError, match=r"needs a task.* it has no handler\.py"):  # what the hub has is not looked at
        LocalEndpoint("somebody/their-handler")
    (folder / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="needs a task"):
        LocalEndpoint(str(folder))
    with pytest.raises(UsageError, match=r"install_requirements is for a folder with a handler\.py"):
        LocalEndpoint(str(folder), "fill-mask", install_requirements=True)


def test_the_handlers_code_and_requirements_are_part_of_the_identity(folder: Path) -> None:
    handler(folder, ECHO)
    seen = [LocalEndpoint(str(folder)).identity(Policy())]
    for name in ("handler.py", "beside.py", "requirements.txt"):
        with (folder / name).open("a") as file:
            file.write("\n# changed\n")
        seen.append(LocalEndpoint(str(folder)).identity(Policy()))
    assert len({orjson.dumps(identity) for identity in seen}) == 4
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "handler.pyc").write_bytes(os.urandom(8))
    assert LocalEndpoint(str(folder), threads=2).identity(Policy()) == seen[-1]


@pytest.mark.slow
def test_a_run_loses_only_the_items_that_kill_hang_or_break_the_handler(
    workplace: Workplace,
) -> None:
    body = """
    if data["inputs"] == "text of 7":
        ctypes.string_at(0)
    if data["inputs"] == "text of 5":
        time.sleep(600)
    return data["inputs"].upper() if data["inputs"] != "text of 3" else {}["x"]
    """
    folder = handler(workplace.folder / "model", body, top="import ctypes, time")
    workplace.write_rows({"id": f"i{n}", "text": f"text of {n}"} for n in range(30))
    workplace.job(endpoint=f"LocalEndpoint({str(folder)!r})", policy="timeout=2, backoff=Backoff(first=0.01)")
    ended = workplace.run("run", "job.py")
    assert ended.code == 3, ended.err
    assert {row["id"]: row["error"]["kind"] for row in workplace.failures()} == {
        "i3": "dubious",
        "i5": "crashed",
        "i7": "crashed",
    }
    assert len(workplace.outputs()) == 27


async def test_a_start_that_is_interrupted_leaves_no_process_behind(folder: Path) -> None:
    handler(folder, ECHO)
    async with (await endpoint_of(folder)).control() as control:
        assert isinstance(control, LocalControl)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await control.resume()
        pid = control.pid
        assert pid is not None  # so `pause` can end it
    assert not await anyio.to_thread.run_sync(psutil.pid_exists, pid)
