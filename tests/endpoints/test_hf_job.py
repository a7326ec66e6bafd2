"""A model server as a Hugging Face Job: created once, found by its label, cancelled, followed by the next one."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import anyio
import pytest

from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import EndpointFailed, EndpointRefused, EndpointSilent, UsageError
from orchestrator.domain.policy import Backoff, Policy
from orchestrator.endpoints import HuggingFaceJobEndpoint, endpoint_from, hf_calls, hf_job_control
from orchestrator.endpoints.api_calls import ApiTimeouts
from orchestrator.endpoints.hf_job_control import JobGroup
from orchestrator.endpoints.hf_jobs_api import LABEL, REPLICA_LABEL, WINDOW_LABEL
from orchestrator.testing.endpoints import until_awake
from tests.commands import DEADLINE
from tests.hf_jobs_service import CANCELED, JobsService, jobs_service

if TYPE_CHECKING:
    from collections.abc import Iterator


def labeller(**settings: object) -> HuggingFaceJobEndpoint:
    usual: dict[str, object] = {"image": "acme/server", "command": ["serve"], "flavor": "cpu-basic"}
    return HuggingFaceJobEndpoint("acme/labeller", **usual | settings)  # type: ignore[arg-type]  # any of its fields


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[JobsService]:
    monkeypatch.setattr(
        hf_calls, "API_TIMEOUTS", ApiTimeouts(one=DEADLINE, whole=DEADLINE, backoff=Backoff(0.01, cap=0.05))
    )
    monkeypatch.setattr(hf_job_control, "LOOK_EVERY", 0.02)
    with jobs_service(page_size=2) as service:
        monkeypatch.setenv("HF_TOKEN", service.token)
        monkeypatch.setenv("HF_ENDPOINT", service.url)
        yield service


_CLIENT = """
import json, sys
from huggingface_hub import HfApi
api = HfApi()
ran = [api.run_job(image="python:3.12", command=["serve"], flavor="cpu-basic", timeout="1h", expose=[8000],
                   labels={"a": str(number % 2)}, env={"X": "1"}, secrets={"S": "s"}) for number in range(5)]
api.cancel_job(job_id=ran[1].id)
print(json.dumps({
    "labelled": [job.id for job in api.list_jobs(labels={"a": "1"})],
    "stages": [str(api.inspect_job(job_id=job.id).status.stage) for job in ran[:2]],
    "flavors": [one.name for one in api.list_jobs_hardware()],
    "log": list(api.fetch_job_logs(job_id=ran[1].id)),
    "gpus": next(iter(api.fetch_job_metrics(job_id=ran[0].id)))["gpus"],
    "durations": api.inspect_job(job_id=ran[1].id).durations.total_secs,
    "exposed": api.inspect_job(job_id=ran[0].id).status.expose_urls[0].startswith("http://127.0.0.1:"),
}))
"""


def test_the_real_client_drives_the_service(service: JobsService) -> None:
    service.scheduling = 0.0
    said = json.loads(subprocess.run([sys.executable, "-c", _CLIENT], check=True, capture_output=True).stdout)
    numbers = list(service.jobs)
    assert said == {
        "labelled": [numbers[3], numbers[1]],
        "stages": ["RUNNING", "CANCELED"],
        "flavors": ["cpu-basic", "l4x1"],
        "log": ["loading"],
        "gpus": {"d901cd7f": {"utilization": 97, "memory_used_bytes": 20_000, "memory_total_bytes": 22_836}},
        "durations": 0,
        "exposed": True,
    }


_CREATED = """
from huggingface_hub import HfApi, Volume
volumes = [Volume(type="model", source="acme/m", mount_path="/model", revision="v1"),
           Volume(type="bucket", source="acme/b", mount_path="/cache", read_only=False, path="a/b")]
HfApi().run_job(image="acme/server", command=["serve", "--fast"], env={"A": "b"}, secrets={"WEIGHTS_KEY": "k-e-y"},
                flavor="l4x1", timeout="90m", volumes=volumes, expose=[9000], namespace="acme",
                labels={"orchestrator-endpoint": "labeller", "name": "n"})
"""


async def test_a_job_is_created_as_the_real_client_creates_it(
    service: JobsService, monkeypatch: pytest.MonkeyPatch
) -> None:
    await anyio.run_process([sys.executable, "-c", _CREATED])
    (theirs,) = service.jobs.values()
    monkeypatch.setenv("WEIGHTS_KEY", "k-e-y")
    volumes = [
        {"type": "model", "source": "acme/m", "mountPath": "/model", "revision": "v1"},
        {"type": "bucket", "source": "acme/b", "mountPath": "/cache", "readOnly": False, "path": "a/b"},
    ]
    settings: dict[str, object] = {"env": {"A": "b"}, "secrets": ["WEIGHTS_KEY"], "flavor": "l4x1", "port": 9000}
    endpoint = labeller(command=["serve", "--fast"], volumes=volumes, timeout="90m", **settings)
    service.end(theirs, CANCELED)
    async with endpoint.control() as control:
        await control.resume()
        (ours,) = service.alive()
        await control.pause()
    assert ours.spec | {"labels": {}} == theirs.spec | {"labels": {}}


async def test_a_job_is_created_with_its_label_its_timeout_and_its_secrets(
    service: JobsService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEIGHTS_KEY", "key-of-the-weights")
    volumes = [{"type": "model", "source": "acme/m", "mountPath": "/model"}]
    endpoint = labeller(timeout="90m", env={"A": "b"}, secrets=["WEIGHTS_KEY"], volumes=volumes)
    async with endpoint.control() as control:
        assert (await control.state(), control.status_text) == (EndpointState.PAUSED, "no job")
        await control.resume()
        (job,) = service.jobs.values()
        assert job.spec == {
            "dockerImage": "acme/server",
            "command": ["serve"],
            "arguments": [],
            "environment": {"A": "b"},
            "secrets": {"WEIGHTS_KEY": "key-of-the-weights"},
            "flavor": "cpu-basic",
            "timeoutSeconds": 5400,
            "expose": {"ports": [8000], "portsPublic": []},
            "volumes": volumes,
            "labels": {LABEL: "labeller"},
        }
        await until_awake(control)
        assert await control.price() == pytest.approx(0.000167 * 60 + 0.01)
        await control.pause()
        assert (await control.state(), job.stage) == (EndpointState.PAUSED, CANCELED)
        assert control.status_text == f"job {job.id} CANCELED after running for 0 s"


async def test_each_replica_is_a_job_with_its_own_label_and_url_and_the_price_is_that_of_all(
    service: JobsService,
) -> None:
    async with labeller(replicas=3).control() as control:
        assert isinstance(control, JobGroup)
        control.prepare("7-1000", 3000.9)
        await control.resume()
        assert [job.spec["labels"] for job in service.jobs.values()] == [
            {LABEL: "labeller", REPLICA_LABEL: number, WINDOW_LABEL: "7-1000"} for number in ("1", "2", "3")
        ]
        assert {job.spec["timeoutSeconds"] for job in service.jobs.values()} == {3000}
        await until_awake(control)
        assert len({job.url for job in service.jobs.values()}) == 3
        assert await control.price() == pytest.approx(3 * (0.000167 * 60 + 0.01))
        billed = await control.billed("7-1000")
        assert billed is not None
        assert billed.dollars == pytest.approx(billed.seconds * (0.000167 * 60 + 0.01) / 3600)
        assert await control.billed("8-1000") is None
        await control.pause()
    assert service.alive() == []


async def test_every_lost_creation_of_several_replicas_is_found_again(service: JobsService) -> None:
    service.lose_answers = 3
    async with labeller(replicas=3).control() as control:
        await control.resume()
        assert sorted(job.spec["labels"][REPLICA_LABEL] for job in service.alive()) == ["1", "2", "3"]
        await control.pause()
    assert (len(service.jobs), service.alive()) == (3, [])


async def test_a_job_of_a_replica_that_there_is_no_more_is_cancelled_too(service: JobsService) -> None:
    seventh = service.add(**{LABEL: "labeller", REPLICA_LABEL: "7"})
    async with labeller(replicas=2).control() as control:
        assert not (await control.state()).asleep
        await control.pause()
        assert (await control.state()).asleep
    assert seventh.stage == CANCELED


async def test_a_replica_that_cannot_be_created_does_not_keep_the_others_from_running(service: JobsService) -> None:
    service.refuses_after = 1
    async with labeller(replicas=2).control() as control:
        await control.resume()
        await until_awake(control)
        await control.pause()
    service.refuses_after = 0
    async with labeller(replicas=2).control() as control:
        with pytest.raises(EndpointFailed, match="no more jobs"):
            await control.resume()


async def test_a_job_that_is_not_listed_yet_is_starting_and_no_second_one_is_created(service: JobsService) -> None:
    async with labeller().control() as control:
        await control.resume()
        service.lists_nothing = 1
        assert await control.state() in {EndpointState.STARTING, EndpointState.AWAKE}
        await control.pause()


async def test_a_creation_whose_answer_is_lost_creates_no_second_job(service: JobsService) -> None:
    service.lose_answers = 1
    async with labeller().control() as control:
        await control.resume()
        await until_awake(control)
        assert len(service.jobs) == 1
        await control.pause()
    assert service.alive() == []


@pytest.mark.parametrize("replicas", [1, 2])
async def test_a_job_is_created_as_soon_as_the_service_can_and_only_once(
    service: JobsService, monkeypatch: pytest.MonkeyPatch, replicas: int
) -> None:
    monkeypatch.setattr(hf_job_control, "BETWEEN_CREATIONS", Backoff(0.01, cap=0.02))
    refused = [(429, False, "0"), (503, False, ""), (500, False, "")] * 4
    service.busy = [*refused, (504, True, "")]
    async with labeller(replicas=replicas).control() as control:
        await control.resume()
        await until_awake(control)
        assert service.busy == []
        await control.resume()
        assert len(service.jobs) == replicas
        await control.pause()
    assert service.alive() == []


async def test_a_service_that_asks_for_more_time_than_there_is_is_not_asked_again(service: JobsService) -> None:
    service.busy = [(429, False, "60")] * 9
    async with labeller(startup_timeout=30.0).control() as control:
        with pytest.raises(EndpointSilent, match=r"in 1 tries, the last one: 429 \(too many at once\); run the same"):
            await control.resume()
    assert len(service.busy) == 8


async def test_a_job_whose_answer_was_lost_and_that_is_listed_late_does_not_run_beside_the_next_one(
    service: JobsService,
) -> None:
    service.lose_answers, service.lists_nothing = 1, 2
    async with labeller().control() as control:
        await control.resume()
        assert (len(service.jobs), len(service.alive())) == (2, 1)
        await control.pause()
    assert service.alive() == []


async def test_a_second_job_that_is_listed_only_later_is_cancelled_by_the_next_look(service: JobsService) -> None:
    service.lose_answers, service.lists_nothing = 1, 3
    async with labeller().control() as control:
        await control.resume()
        first, second = service.jobs.values()
        assert (first.alive, second.alive) == (True, True)
        await until_awake(control)
        assert (first.alive, second.stage) == (True, CANCELED)
        service.end(first, "COMPLETED")
        assert await control.state() is not EndpointState.PAUSED
        await control.pause()


async def test_a_second_job_with_the_label_is_cancelled_and_other_jobs_are_left_alone(service: JobsService) -> None:
    first, second = (service.add(**{LABEL: "labeller"}) for _ in range(2))
    others = [service.add(**{LABEL: "another"}), service.add(name="labeller"), service.add()]
    async with labeller().control() as control:
        await control.resume()
        assert service.alive() == [first, *others]
        await control.pause()
    assert (second.stage, service.alive()) == (CANCELED, others)


async def test_a_job_that_fails_before_it_answers_has_failed_and_the_message_says_why(service: JobsService) -> None:
    service.fails = "cannot pull image acme/server"
    async with labeller().control() as control:
        await control.resume()
        while (state := await control.state()) is EndpointState.STARTING:
            pass
        assert state is EndpointState.FAILED
        assert "ERROR after running for 0 s: cannot pull image acme/server" in control.status_text
        await control.pause()
        assert await control.state() is EndpointState.PAUSED  # nothing bills any more


async def test_a_price_that_is_not_given_at_first_is_asked_for_again(service: JobsService) -> None:
    service.hides_prices = 2
    async with labeller().control() as control:
        assert await control.price() == pytest.approx(0.000167 * 60 + 0.01)


@pytest.mark.parametrize("paused", [False, True])
async def test_a_job_that_the_service_no_longer_knows_is_paused(service: JobsService, *, paused: bool) -> None:
    async with labeller().control() as control:
        await control.resume()
        await until_awake(control)
        if paused:
            await control.pause()
        service.jobs.clear()
        assert await control.state() is EndpointState.PAUSED
        assert "DELETED" in control.status_text


async def test_what_the_ledger_keeps_finds_the_job_again(service: JobsService) -> None:
    async with labeller().control() as control:
        await control.resume()
        assert control.terms is not None
        kept = json.loads(json.dumps(control.terms.pause_with))
    async with endpoint_from(kept).control() as control:
        assert await control.state() in {EndpointState.STARTING, EndpointState.AWAKE}
        await control.pause()
    assert service.alive() == []


async def test_a_token_that_may_not_manage_jobs_and_a_missing_secret_are_named(
    service: JobsService, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"^endpoint acme/labeller: set the environment variable WEIGHTS_KEY, which"):
        async with labeller(secrets=["WEIGHTS_KEY"]).control() as control:
            await control.resume()
    monkeypatch.setenv("HF_TOKEN", "hf_revoked")
    async with labeller().control() as control:
        with pytest.raises(EndpointRefused, match="HF_TOKEN holds no valid token"):
            await control.state()


async def test_a_service_that_loses_every_creation_says_so(service: JobsService) -> None:
    service.lose_answers, service.fails, service.scheduling = 9, "no machines", 0.0
    async with labeller().control() as control:
        with pytest.raises(EndpointSilent, match="no proper answer"):
            await control.resume()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"timeout": "soon"}, "'soon' is not a duration"),
        ({"replicas": 0}, "replicas must be at least 1"),
        ({"port": 0}, "port must be from 1 to 65535"),
        ({"health": "health"}, "health must begin with /"),
        ({"pause": "scale_to_zero"}, "pause must be if_resumed, always or never"),
        ({"env": {"API_TOKEN": "x"}}, r"env\['API_TOKEN'\] may hold a secret, which would be stored"),
        ({"command": "vllm serve"}, "command"),
        ({"volumes": [{"source": "acme/m"}]}, "volumes must be a list of"),
        ({"volumes": [{"type": "model", "source": "acme/m", "mountPath": "model"}]}, "mountPath must begin with /"),
        ({"volumes": [{"type": "disk", "source": "acme/m", "mountPath": "/m"}]}, "type must be one of model, dataset"),
        ({"volumes": [{"type": "model", "source": "a/m", "mountPath": "/m", "mode": "ro"}]}, "has no setting 'mode'"),
        ({"secrets": ["not a name"]}, "'not a name' is not the name of an environment variable"),
        ({"secrets": ["A"], "env": {"A": "b"}}, "A is in both env and secrets"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        labeller(**settings)


@pytest.mark.parametrize("preset", ["vllm", "sglang", "tei"])
def test_a_preset_names_image_command_model_and_wire(preset: str) -> None:
    made = getattr(HuggingFaceJobEndpoint, preset)("acme/m", "acme/model", flavor="l4x1", arguments=["--x"], port=8000)
    assert (made.command[-1], made.flavor, made.model) == ("--x", "l4x1", "acme/model")
    assert made.identity(Policy())["model"] == "acme/model"
