from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.config import load_settings
from orchestrator.domain.errors import UsageError
from orchestrator.endpoints import (
    CommandEndpoint,
    EndpointSpec,
    HttpEndpoint,
    HuggingFaceEndpoint,
    ServerlessEndpoint,
    endpoint_from,
    named,
)
from orchestrator.endpoints.named import declared
from orchestrator.kinds import ENDPOINTS
from orchestrator.wires.huggingface import HuggingFaceWire
from orchestrator.wires.openai import OpenAIChatWire
from orchestrator.wires.openai_batch import OpenAIBatchWire
from tests.commands import rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.ports import Endpoint
    from tests.commands import Workplace
    from tests.servers import InferenceServer

ROOT = Path(__file__).parents[2]
COMMANDS: dict[str, Any] = {"resume": ["up"], "state": ["look"], "pause": ["down"]}
COMMAND = {"kind": "command", "name": "e", "url": "http://h:1/", **COMMANDS}
SPEC: dict[str, Any] = {
    "repository": "acme/m",
    "vendor": "aws",
    "region": "us-east-1",
    "accelerator": "gpu",
    "instance_type": "nvidia-t4",
    "instance_size": "x1",
}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    path = tmp_path / "config.toml"
    monkeypatch.setenv("ORCHESTRATOR_CONFIG", str(path))

    def write(text: str) -> None:
        path.write_text(text)

    write("")
    return write


def refusal(fields: dict[str, object]) -> str:
    with pytest.raises(UsageError) as raised:
        endpoint_from(fields)
    said = str(raised.value)
    assert "\n" not in said
    return said


# -- plain data --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "meant"),
    [
        (
            {"kind": "http", "url": "http://h/", "headers": {"A": "b"}, "lists": True, "startup_timeout": 5},
            HttpEndpoint("http://h/", headers={"A": "b"}, lists=True, startup_timeout=5.0),
        ),
        (
            {"kind": "huggingface", "name": "acme/batch", "pause": "always", "scale_to_zero_minutes": 30},
            HuggingFaceEndpoint("acme/batch", pause="always", scale_to_zero_minutes=30),
        ),
        (
            {"kind": "huggingface", "name": "acme/b", "wire": {"parameters": {"k": 1}, "lists": True}},
            HuggingFaceEndpoint("acme/b", wire=HuggingFaceWire({"k": 1}, lists=True)),
        ),
        (
            {"kind": "huggingface", "name": "acme/b", "lifecycle": "ephemeral", "create": SPEC | {"tags": ["x"]}},
            HuggingFaceEndpoint("acme/b", lifecycle="ephemeral", create=EndpointSpec(**SPEC, tags=["x"])),
        ),
        (
            COMMAND | {"wire": {"kind": "openai", "model": "m"}, "words": {"ok": "awake"}, "leave": "always"},
            CommandEndpoint(
                "e", "http://h:1/", **COMMANDS, wire=OpenAIChatWire("m"), words={"ok": "awake"}, leave="always"
            ),
        ),
        (COMMAND | {"wire": {"kind": "huggingface"}}, CommandEndpoint("e", "http://h:1/", **COMMANDS)),
        (
            {"kind": "serverless", "model": "acme/m", "route": "chat"},
            ServerlessEndpoint("acme/m", route="chat"),
        ),
    ],
)
def test_an_endpoint_is_created_from_plain_data(fields: dict[str, object], meant: Endpoint) -> None:
    assert endpoint_from(fields) == meant


def test_a_local_model_can_be_created_from_plain_data_like_every_kind(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    made = endpoint_from({"kind": "local", "model": str(tmp_path), "task": "fill-mask", "threads": 2})
    assert made.name == f"local:{tmp_path.name}"
    servers = {"local_server", "vllm", "sglang", "tei", "llama_cpp", "transformers_serve", "ray"}
    assert set(ENDPOINTS.names) == {
        "huggingface",
        "huggingface_job",
        "huggingface_space",
        "sagemaker",
        "http",
        "command",
        "serverless",
        "local",
        *servers,
    }


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            {"kind": "telnet"},
            "kind must be one of huggingface, huggingface_job, huggingface_space, sagemaker, http, command, ",
        ),
        ({"kind": None}, "kind is missing: one of huggingface"),
        ({"colour": "red"}, "there is no setting 'colour'; there is name, url, resume, state, pause, words, wire"),
        ({"url": 5}, "url: Input should be a valid string, not 5"),
        ({"startup_timeout": "soon"}, "startup_timeout: Input should be a valid number, not 'soon'"),
        ({"startup_timeout": "5"}, "startup_timeout: Input should be a valid number, not '5'"),
        ({"resume": "up now"}, "resume: Input should be a valid array, not 'up now'"),
        ({"resume": ["up", 1]}, "resume[1]: Input should be a valid string, not 1"),
        ({"words": {"ok": 1}}, "words['ok']: Input should be a valid string, not 1"),
        ({"words": {"ok": "fine"}}, "words['ok'] must be one of paused, scaled to zero"),
        ({"leave": "sometimes"}, "leave: Input should be 'if_resumed', 'always'"),
        ({"url": "h:1"}, "an endpoint needs a URL"),
        ({"wire": "openai"}, "wire must be a table of settings, not 'openai'"),
        ({"wire": {"kind": "morse"}}, "wire: kind must be one of huggingface, openai, openai-chat, "),
        ({"wire": {"kind": "openai"}}, "wire: model is missing"),
        ({"wire": {"list": True}}, "wire: there is no setting 'list'; there is parameters, lists"),
        ({"wire": {"lists": "yes"}}, "wire: lists: Input should be a valid boolean, not 'yes'"),
        ({"health": Path("/")}, "health: PosixPath('/') is not a valid value in a settings file"),
    ],
)
def test_invalid_settings_are_named(wrong: dict[str, object], said: str) -> None:
    assert said in refusal(COMMAND | wrong)


def test_missing_settings_are_named() -> None:
    assert refusal({"kind": "http"}) == "endpoint: url is missing"
    assert "pause is missing" in refusal({key: value for key, value in COMMAND.items() if key != "pause"})
    spec = {key: value for key, value in SPEC.items() if key != "region"}
    fields: dict[str, object] = {"kind": "huggingface", "name": "a/b", "lifecycle": "ephemeral", "create": spec}
    assert "create: region is missing" in refusal(fields)


def test_the_endpoints_in_the_documentation_are_valid() -> None:
    shown = (ROOT / "docs/endpoints.md").read_text()
    example = (ROOT / "config.example.toml").read_text().partition("[endpoints]")[2].replace("# ", "")
    found = {}
    for text in (*re.findall(r"```toml\n(.*?)```", shown, re.DOTALL), example):
        for name, fields in tomllib.loads(text)["endpoints"].items():
            found[name] = declared(name, fields)
    assert set(found) >= {"batch", "kubernetes", "compose", "systemd", "gpu1", "sky"}


# -- the settings file -------------------------------------------------------------------------------------------------


def test_an_endpoint_in_the_settings_file_is_found_by_its_name(settings: Callable[[str], None]) -> None:
    settings("""
        [endpoints.here]
        kind = "http"
        url = "http://h/"
        [endpoints.batch]
        kind = "command"
        url = "http://h:1/"
        resume = ["up"]
        state = ["look"]
        pause = ["down"]
        wire = { parameters = { top_k = 1 }, lists = true }
        [endpoints.managed]
        kind = "huggingface"
        name = "acme/other"
    """)
    assert named("here") == HttpEndpoint("http://h/")
    assert named("batch") == CommandEndpoint(
        "batch", "http://h:1/", **COMMANDS, wire=HuggingFaceWire({"top_k": 1}, lists=True)
    )
    assert named("managed").name == "acme/other"


def test_an_unknown_name_lists_the_existing_ones(settings: Callable[[str], None]) -> None:
    with pytest.raises(UsageError, match=r"has no \[endpoints\.batch\]; it has none"):
        named("batch")
    settings('[endpoints.a]\nkind = "http"\n[endpoints.b]\nkind = "http"\n')
    with pytest.raises(UsageError, match=r"has no \[endpoints\.batch\]; it has a, b"):
        named("batch")


def test_errors_in_the_settings_file_are_named_with_their_place(settings: Callable[[str], None]) -> None:
    settings('[endpoints.a]\nkind = "http"\nurl = "http://h/"\ntimeout = 5\n')
    with pytest.raises(
        UsageError, match=r"\[endpoints\.a\] of the settings file: there is no setting 'timeout'; there"
    ):
        named("a")
    settings('[endpoints.a]\nurl = "http://h/"\n')
    with pytest.raises(UsageError, match=r"\[endpoints\.a\] of the settings file: kind is missing: one of"):
        named("a")
    settings('[endpoints]\na = "http://h/"\n')
    with pytest.raises(UsageError, match=r"endpoints\.a: "):
        named("a")


def test_the_models_of_an_endpoint_are_none_of_its_own_settings(settings: Callable[[str], None]) -> None:
    settings('[endpoints.here]\nkind = "http"\nurl = "http://h/"\nparameters = { k = 1 }\nmodels = ["acme/m", "b"]\n')
    assert named("here") == HttpEndpoint("http://h/", parameters={"k": 1})


def test_an_endpoint_can_speak_another_wire_than_its_own() -> None:
    wire = {"kind": "openai-batch", "route": "/v1/responses", "model": "m"}
    asked: dict[str, object] = {"kind": "http", "url": "http://h/", "parameters": {"k": 1}, "lists": True}
    assert declared("a", asked, wire) == HttpEndpoint("http://h/", wire=OpenAIBatchWire("/v1/responses", "m"))
    assert declared("a", COMMAND, wire) == CommandEndpoint(
        "e", "http://h:1/", **COMMANDS, wire=OpenAIBatchWire("/v1/responses", "m")
    )


def test_a_local_model_serves_no_batches(settings: Callable[[str], None]) -> None:
    settings('[endpoints.here]\nkind = "local"\nmodel = "m"\ntask = "fill-mask"\nmodels = ["m"]\n')
    with pytest.raises(UsageError, match=r"here\] of the settings file: kind 'local' does not speak OpenAI's routes: "):
        named("here")


@pytest.mark.parametrize("models", ['"acme/m"', "[1]", '[""]', "{ a = 1 }"])
def test_models_are_a_list_of_names(settings: Callable[[str], None], models: str) -> None:
    settings(f'[endpoints.a]\nkind = "http"\nurl = "http://h/"\nheaders = {{ k = "hidden" }}\nmodels = {models}\n')
    with pytest.raises(UsageError, match=r'config.toml: \[endpoints\.a\] models must be a list of names, .*"\]$'):
        named("a")


def test_several_endpoints_may_serve_a_model(settings: Callable[[str], None]) -> None:
    http = 'kind = "http"\nurl = "http://h/"\n'
    settings(f'[endpoints.a]\n{http}models = ["x", "y"]\n[endpoints.b]\n{http}[endpoints.c]\n{http}models = ["x"]\n')
    assert load_settings(None, None).served_models == {"x": ["a", "c"], "y": ["a"]}


def test_a_job_file_uses_the_settings_file_of_the_command(workplace: Workplace, server: InferenceServer) -> None:
    workplace.write_rows(rows(range(3)))
    (workplace.folder / "mine.toml").write_text(f'[endpoints.here]\nkind = "http"\nurl = "{server.url}"\n')
    job = workplace.job(endpoint="named('here')", prelude="from orchestrator.endpoints import named")
    ended = workplace.run("run", "--quiet", job)
    assert ended.code == 2
    assert ended.line.endswith("the settings file has no [endpoints.here]; it has none")
    ended = workplace.run("--config", "mine.toml", "run", "--quiet", job)
    assert ended.code == 0, ended.err
    assert len(workplace.outputs()) == 3
