"""The fake service, seen by the real client library; and what the library does not look at."""

from __future__ import annotations

import http.client
import math
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import pytest

pytest.importorskip("huggingface_hub", reason="proves the fake with the real client")

from huggingface_hub import (
    HfApi,
    InferenceEndpoint,
    InferenceEndpointError,
    InferenceEndpointTimeoutError,
    close_session,
    constants,
)
from huggingface_hub.errors import BadRequestError, HfHubHTTPError

from tests.commands import until
from tests.hf_rules import Refused, Script, answer_to
from tests.hf_service import HTML, INFER, JSON_STRING, MANAGE, HfService, Trouble, hf_service

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NS = "acme"
SOON = 0.01  # seconds between two looks
QUICK = Script(pending=0.01, initializing=0.01, updating=0.01, pause=0.01)
STUCK = Script(pending=math.inf)


@pytest.fixture
def service() -> Iterator[HfService]:
    with hf_service(script=QUICK, page_size=2) as service:
        yield service


@pytest.fixture
def api(service: HfService, monkeypatch: pytest.MonkeyPatch) -> Iterator[HfApi]:
    """The real client, which can reach nothing but the service."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", service.url)
    monkeypatch.setattr(constants, "INFERENCE_ENDPOINTS_ENDPOINT", f"{service.url}/v2")
    monkeypatch.setattr(constants, "INFERENCE_CATALOG_ENDPOINT", f"{service.url}/catalog")
    yield HfApi(token=service.token, endpoint=service.url)
    close_session()


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


def call(service: HfService, method: str, path: str, body: object = None, **headers: str) -> Answer:
    """A bare request, with the service's token unless `Authorization` says something else."""
    connection = http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=20)
    try:
        said = {"Authorization": f"Bearer {service.token}"} | {k.replace("_", "-"): v for k, v in headers.items()}
        connection.request(method, path, None if body is None else orjson.dumps(body), said)
        response = connection.getresponse()
        return Answer(response.status, response.read(), dict(response.headers))
    finally:
        connection.close()


def ask(service: HfService, inputs: object, name: str = "ours", **headers: str) -> Answer:
    return call(service, "POST", f"/data/{NS}/{name}", {"inputs": inputs}, **headers)


def manage(service: HfService, method: str, rest: str = "", body: object = None, **headers: str) -> Answer:
    return call(service, method, f"/v2/endpoint/{NS}{rest}", body, **headers)


def get(api: HfApi, name: str = "ours") -> InferenceEndpoint:
    return api.get_inference_endpoint(name, namespace=NS, token=api.token)


def ready(endpoint: InferenceEndpoint, timeout: int = 20) -> InferenceEndpoint:
    return endpoint.wait(timeout, refresh_every=SOON)  # type: ignore[arg-type] # it says int, it only sleeps so long


def create(api: HfApi, name: str, minutes: int = 15) -> InferenceEndpoint:
    return api.create_inference_endpoint(
        name,
        repository="org/model",
        framework="pytorch",
        accelerator="cpu",
        instance_size="x1",
        instance_type="intel-spr",
        region="us-east-1",
        vendor="aws",
        min_replica=0,
        scale_to_zero_timeout=minutes,
        task="text-classification",
        type="private",
        namespace=NS,
        token=api.token,
    )


class TestTheRealClient:
    def test_takes_an_endpoint_through_its_whole_life(self, service: HfService, api: HfApi) -> None:
        endpoint = create(api, "ours")
        assert (endpoint.status, endpoint.url) == ("pending", None)
        ready(endpoint)
        assert (endpoint.status, endpoint.url) == ("running", f"{service.url}/data/{NS}/ours")
        assert endpoint.client.text_classification("good") == answer_to("good")
        endpoint.update(max_replica=3)
        assert (endpoint.status, endpoint.raw["compute"]["scaling"]["maxReplica"]) == ("updating", 3)
        assert endpoint.raw["compute"]["scaling"]["scaleToZeroTimeout"] == 15
        ready(endpoint)
        endpoint.scale_to_zero()
        assert endpoint.status == "scaledToZero"
        endpoint.resume()
        ready(endpoint)
        endpoint.pause()
        service.wait_for_state("ours", "paused")
        endpoint.fetch()
        assert (endpoint.status, endpoint.url) == ("paused", f"{service.url}/data/{NS}/ours")
        endpoint.delete()
        with pytest.raises(HfHubHTTPError, match="404"):
            endpoint.fetch()
        woken = ["pending", "initializing", "running"]
        assert service.endpoint("ours").states == [
            *woken, "updating", "running", "scaledToZero", *woken, "paused", "deleted",
        ]  # fmt: skip

    @pytest.mark.filterwarnings("ignore:.*is experimental")
    def test_lists_the_catalog_and_deploys_from_it(self, service: HfService, api: HfApi) -> None:
        assert [model.repo_id for model in api.list_inference_catalog()] == ["org/chat", "org/vectors"]
        (model,) = api.list_inference_catalog(task="text-generation", engine="vllm", search="chat", limit=3)
        assert [(one.id, one.engine, one.gguf_file) for one in model.recipes] == [
            ("sizzling-biryani-1", "vllm", None),
            ("artisanal-quinoa-2", "llamacpp", "q4.gguf"),
        ]
        made = api.create_inference_endpoint_from_catalog("org/chat", name="one", gguf_file="q4.gguf", namespace=NS)
        assert (made.name, made.repository, made.status) == ("one", "org/chat", "pending")
        made = api.create_inference_endpoint_from_catalog(recipe_id="crispy-noodle-3", name="two", namespace=NS)
        assert made.repository == "org/vectors"
        for wrong in ({"repo_id": "org/none"}, {"repo_id": "org/chat", "accelerator": "neuron"}, {"recipe_id": "none"}):
            with pytest.raises(HfHubHTTPError, match="404"):
                api.create_inference_endpoint_from_catalog(**wrong, name="x", namespace=NS)
        with pytest.raises(HfHubHTTPError, match="409"):
            api.create_inference_endpoint_from_catalog("org/chat", name="one", namespace=NS)

    def test_sees_only_the_first_page_of_the_list(self, service: HfService, api: HfApi) -> None:
        for name in ("a", "b", "c"):
            service.add(name)
        seen = api.list_inference_endpoints(namespace=NS)
        assert [endpoint.name for endpoint in seen] == ["a", "b"]
        first = manage(service, "GET").json
        second = manage(service, "GET", f"?cursor={first['nextCursor']}").json
        assert [item["name"] for item in second["items"]] == ["c"]
        assert second["nextCursor"] is None

    def test_may_resume_a_running_endpoint(self, service: HfService, api: HfApi) -> None:
        service.add("ours", "running")
        endpoint = get(api)
        assert endpoint.resume(running_ok=True).status == "running"
        with pytest.raises(BadRequestError, match="already running"):
            endpoint.resume(running_ok=False)
        assert service.endpoint("ours").states == ["running"]

    @pytest.mark.parametrize("act", ["start", "update"])
    def test_learns_of_a_failure_and_its_reason(self, service: HfService, api: HfApi, act: str) -> None:
        service.add("ours", "paused" if act == "start" else "running", Script(0.01, 0.01, 0.01, fails="out of memory"))
        endpoint = get(api)
        if act == "start":
            endpoint.resume()
        else:
            endpoint.update(revision="next")
        with pytest.raises(InferenceEndpointError, match="failed to"):
            ready(endpoint)
        assert endpoint.raw["status"]["message"] == "out of memory"

    def test_gives_up_on_an_endpoint_that_gets_no_machine(self, service: HfService, api: HfApi) -> None:
        service.add("ours", script=STUCK)
        endpoint = get(api).resume()
        with pytest.raises(InferenceEndpointTimeoutError):
            ready(endpoint, timeout=0)
        assert endpoint.raw["status"]["readyReplica"] == 0
        assert service.endpoint("ours").billed_seconds == 0

    def test_cannot_create_a_second_endpoint_with_the_same_name(self, service: HfService, api: HfApi) -> None:
        service.add("ours")
        with pytest.raises(HfHubHTTPError, match="409"):
            create(api, "ours")

    @pytest.mark.parametrize("minutes", [14, 2881])
    def test_cannot_set_a_timer_out_of_range(self, service: HfService, api: HfApi, minutes: int) -> None:
        with pytest.raises(BadRequestError, match="between 15 and 2880"):
            create(api, "new", minutes)
        service.add("ours")
        with pytest.raises(BadRequestError, match="between 15 and 2880"):
            get(api).update(scale_to_zero_timeout=minutes)

    def test_fails_on_an_error_that_is_a_json_string(self, service: HfService, api: HfApi) -> None:
        service.trouble(Trouble(body=JSON_STRING))
        with pytest.raises(AttributeError):
            get(api)


class TestManagement:
    def test_knows_its_tokens_and_their_permissions(self, service: HfService) -> None:
        service.add("ours", "running")
        service.grant("caller", INFER)
        service.grant("manager", MANAGE)
        assert manage(service, "GET", "/ours", Authorization="Bearer nobody").json == {
            "error": "401 Unauthorized",
            "code": "UNAUTHORIZED",
        }
        assert manage(service, "POST", "/ours/pause", Authorization="Bearer caller").status == 403
        assert manage(service, "GET", "/ours", Authorization="Bearer caller").status == 200
        refused = ask(service, "text", Authorization="Bearer manager")
        assert (refused.status, "inference.endpoints.infer.write" in refused.json["error"]) == (403, True)
        assert ask(service, "text", Authorization="Bearer caller").status == 200
        service.revoke()
        assert manage(service, "GET", "/ours").status == 401
        assert [seen.ours for seen in service.calls()] == [False, False, False, False, False, True]

    def test_a_resume_may_reset_the_timer_until_it_is_set_again(self, service: HfService) -> None:
        service.add("ours", compute={"scaling": {"minReplica": 0, "maxReplica": 2, "scaleToZeroTimeout": 15}})
        manage(service, "POST", "/ours/resume")
        assert service.endpoint("ours").scaling["scaleToZeroTimeout"] is None
        scaling = {"minReplica": 0, "scaleToZeroTimeout": 15}
        seen = manage(service, "PUT", "/ours", {"compute": {"scaling": scaling}}).json["compute"]["scaling"]
        assert seen == {"maxReplica": 1, "measure": {"pendingRequests": 1.5}} | scaling
        service.script("ours", resume_resets_scaling=False)
        service.pause_from_outside("ours")
        manage(service, "POST", "/ours/resume")
        assert service.endpoint("ours").scaling["scaleToZeroTimeout"] == 15

    def test_a_pause_takes_time_and_may_never_happen(self, service: HfService) -> None:
        service.add("ours", "running", Script(pause=math.inf))
        assert manage(service, "POST", "/ours/pause").json["status"]["state"] == "running"
        service.jump(1000)
        assert ask(service, "text").status == 200
        assert manage(service, "POST", "/ours/resume").status == 400

    def test_says_what_machines_cost(self, service: HfService) -> None:
        vendors = call(service, "GET", f"/v2/provider/{NS}").json["vendors"]
        computes = vendors[0]["regions"][0]["computes"]
        assert {compute["instanceType"]: compute["pricePerHour"] for compute in computes}["nvidia-l4"] == 0.8

    def test_shows_logs_and_metrics(self, service: HfService) -> None:
        service.add("ours", "running")
        service.log("ours", "loading weights")
        service.fail("ours", "CUDA out of memory")
        assert ask(service, "text").status == 400
        text = manage(service, "GET", "/ours/logs?tail=2&replica=0").body.decode()
        lines = [re.fullmatch(r"- \d{4}-\d\d-\d\dT[\d:.]+Z (.+)", line) for line in text.splitlines()]
        assert [line and line[1] for line in lines] == ["loading weights", "failed: CUDA out of memory"]
        metrics = manage(service, "GET", "/ours/open-metrics").body.decode()
        assert 'http_requests{replica_id="0",status_code="400"} 1' in metrics

    def test_a_missing_endpoint_is_404(self, service: HfService) -> None:
        service.add("gone")
        service.delete("gone")
        assert manage(service, "GET", "/gone").status == 404
        assert ask(service, "text", "gone").status == 404
        assert call(service, "GET", "/v2/endpoint/others/gone").status == 404
        assert call(service, "GET", "/v2/nothing").status == 404
        assert service.endpoint("gone").states == ["paused", "deleted"]


class TestDataPlane:
    @pytest.mark.parametrize(
        ("state", "status", "code", "words"),
        [
            ("paused", 400, "BAD_REQUEST", "The endpoint is paused, ask a maintainer"),
            ("failed", 400, "BAD_REQUEST", "Your endpoint is in error"),
            ("initializing", 503, "SERVICE_UNAVAILABLE", "503 Service Unavailable"),
            ("updating", 503, "SERVICE_UNAVAILABLE", "503 Service Unavailable"),
            ("scaledToZero", 503, "SERVICE_UNAVAILABLE", "503 Service Unavailable"),
        ],
    )
    def test_the_platform_answers_for_an_endpoint_that_is_not_running(
        self, service: HfService, state: str, status: int, code: str, words: str
    ) -> None:
        service.add("ours", state)
        answer = ask(service, "text")
        assert (answer.status, answer.json["code"], words in answer.json["error"]) == (status, code, True)
        assert "Retry-After" not in answer.headers

    def test_answers_and_counts_every_input(self, service: HfService) -> None:
        service.add("ours", "running")
        service.add("vectors", "running", model={"task": "feature-extraction"})
        assert ask(service, "a").json == [answer_to("a")]
        assert ask(service, ["a", "b"]).json == [answer_to("a"), answer_to("b")]
        assert ask(service, ["a"], "vectors").json == [answer_to("a", "feature-extraction")]
        assert service.endpoint("ours").answered == {"a": 2, "b": 1}
        assert call(service, "GET", f"/data/{NS}/ours/health").status == 200

    def test_only_an_authorized_request_wakes_an_endpoint_that_is_scaled_to_zero(self, service: HfService) -> None:
        service.add("ours", "scaledToZero")
        assert ask(service, "text", Authorization="").status == 401
        assert service.endpoint("ours").states == ["scaledToZero"]
        assert ask(service, "text").status == 503
        service.wait_for_state("ours", "running")
        assert ask(service, "text").status == 200

    def test_holds_a_request_that_says_how_long_it_waits_for_a_start(self, service: HfService) -> None:
        service.add("ours", "scaledToZero")
        assert ask(service, "text", X_Scale_Up_Timeout="20").json == [answer_to("text")]

    def test_goes_to_sleep_when_idle_and_only_then(self, service: HfService) -> None:
        scaling = {"minReplica": 0, "scaleToZeroTimeout": 15}
        service.add("ours", "running", compute={"scaling": scaling})
        service.behave(hold_after=0)
        with ThreadPoolExecutor() as threads:
            held = threads.submit(ask, service, "text")
            until(lambda: service.endpoint("ours").in_flight)
            service.jump(15 * 60)
            assert service.endpoint("ours").state == "running"
            service.behave()
            assert held.result().status == 200
        service.jump(15 * 60)
        assert service.endpoint("ours").state == "scaledToZero"

    def test_cannot_be_reached_at_first_and_when_a_replica_is_lost(self, service: HfService) -> None:
        service.add("ours", "running", Script(bad_gateway=100))
        answer = ask(service, "text")
        assert (answer.status, answer.body) == (502, HTML)
        service.jump(100)
        assert ask(service, "text").status == 200
        service.lose_replica("ours", 100)
        assert ask(service, "text").json["code"] == "SERVICE_UNAVAILABLE"
        status = manage(service, "GET", "/ours").json["status"]
        assert (status["state"], status["readyReplica"]) == ("running", 0)
        service.jump(100)
        assert ask(service, "text").status == 200

    def test_treats_marked_inputs_as_configured(self, service: HfService) -> None:
        service.add("ours", "running")
        service.behave(statuses={"poison": 400, "busy": 429}, delays={"": 0.001})
        assert "code" not in ask(service, "some poison").json
        assert ask(service, ["fine", "busy"]).status == 429
        assert ask(service, "fine").status == 200
        assert call(service, "POST", f"/data/{NS}/ours", {"input": "text"}).status == 400
        seen = service.endpoint("ours")
        assert (seen.asked["fine"], seen.answered["fine"]) == (2, 1)

    def test_a_held_request_fails_if_the_endpoint_is_paused_meanwhile(self, service: HfService) -> None:
        service.add("ours", "running")
        service.behave(hold_after=1)
        assert ask(service, "first").status == 200
        with ThreadPoolExecutor() as threads:
            held = threads.submit(ask, service, "second")
            until(lambda: service.endpoint("ours").in_flight)
            service.pause_from_outside("ours")
            service.behave()
            assert "is paused" in held.result().json["error"]
        assert service.endpoint("ours").answered == {"first": 1}


class TestMeter:
    def test_runs_while_an_endpoint_initializes_runs_or_updates(self, service: HfService) -> None:
        service.add("ours", script=Script(pending=1000, initializing=100, updating=10, pause=1))
        manage(service, "POST", "/ours/resume")
        service.jump(500)
        assert service.endpoint("ours").billed_seconds == 0
        service.jump(600)
        manage(service, "PUT", "/ours", {"model": {"revision": "next"}})
        service.jump(10)
        manage(service, "POST", "/ours/pause")
        service.jump(1)
        seen = service.endpoint("ours")
        assert seen.states == ["paused", "pending", "initializing", "running", "updating", "running", "paused"]
        spans = [stay.until - stay.since for stay in seen.intervals if stay.until is not None]
        assert [spans[1], spans[2], spans[4]] == pytest.approx([1000, 100, 10])
        assert seen.billed_seconds == pytest.approx(sum(spans[2:]))
        service.jump(1000)
        assert service.endpoint("ours").billed_seconds == seen.billed_seconds

    def test_does_not_run_for_an_endpoint_that_was_not_woken(self, service: HfService) -> None:
        service.add("theirs")
        service.add("ours", "running")
        ask(service, "text")
        manage(service, "GET", "/theirs")
        assert service.endpoint("theirs").billed_seconds == 0
        assert not service.calls("(POST|PUT|DELETE) .*/theirs")

    def test_can_be_read_after_it_has_ended(self) -> None:
        with hf_service() as service:
            service.add("ours", "running")
            ask(service, "text")
        assert service.endpoint("ours").answered == {"text": 1}
        service.add("paused")
        with pytest.raises(Refused):
            service.scale_to_zero("paused")


class TestTrouble:
    def test_affects_a_share_of_the_calls_and_the_same_ones_every_time(self) -> None:
        def statuses() -> list[int]:
            with hf_service(seed=7) as service:
                service.add("ours", "running")
                service.trouble(Trouble(fraction=0.3))
                assert ask(service, "text").status == 200
                return [manage(service, "GET", "/ours").status for _ in range(40)]

        first = statuses()
        assert set(first) == {200, 503}
        assert statuses() == first

    def test_can_look_like_failures_of_the_real_service(self, service: HfService) -> None:
        service.add("ours")
        limited = Trouble("GET .*/ours", 429, retry_after=3, times=1)
        service.trouble(limited, Trouble(status=200, body=HTML, times=1), Trouble(status=200, body=JSON_STRING))
        first, second, third = (manage(service, "GET", "/ours") for _ in range(3))
        assert (first.status, first.headers["Retry-After"]) == (429, "3")
        assert (second.status, second.headers["Content-Type"], second.body) == (200, "text/html", HTML)
        assert third.json == "upstream connect error"
        service.calm()
        assert manage(service, "GET", "/ours").json["name"] == "ours"

    def test_may_lose_only_the_answer(self, service: HfService) -> None:
        service.add("ours")
        service.trouble(Trouble("/resume", 502, HTML, after=True))
        assert manage(service, "POST", "/ours/resume").status == 502
        service.wait_for_state("ours", "running")

    def test_may_hang_until_it_ends(self, service: HfService) -> None:
        service.add("ours")
        service.trouble(Trouble("POST", hang=True))
        with ThreadPoolExecutor() as threads:
            hung = threads.submit(manage, service, "POST", "/ours/resume")
            until(lambda: service.calls("/resume"))
            assert manage(service, "GET", "/ours").json["status"]["state"] == "paused"
            assert [seen.status for seen in service.calls()] == [0, 200]
            service.calm()
            assert hung.result().json["status"]["state"] == "pending"

    def test_a_call_that_hung_and_was_abandoned_changes_nothing(self, service: HfService) -> None:
        service.add("ours")
        service.trouble(Trouble("POST", hang=True))
        connection = http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=20)
        connection.request(
            "POST", f"/v2/endpoint/{NS}/ours/resume", headers={"Authorization": f"Bearer {service.token}"}
        )
        until(lambda: service.calls("/resume"))
        connection.close()
        until(lambda: service.calls("/resume")[0].left)
        service.calm()
        manage(service, "GET", "/ours")
        assert service.endpoint("ours").states == ["paused"]


def test_the_client_lists_every_namespace_and_leaves_out_those_without_billing(
    service: HfService, api: HfApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", service.token)  # it forgets the token that it was given for the account's own
    for name in ("ours", "theirs"):
        service.add(name)
    service.organization("labs", "theirs")
    service.organization("unpaid", refuses=True)
    assert [one.name for one in api.list_inference_endpoints(NS)] == ["ours"]
    assert [one.name for one in api.list_inference_endpoints("*")] == ["ours", "theirs"]


def test_the_client_reads_the_catalogue_of_hardware(api: HfApi) -> None:
    found = {one.id: one for one in api.list_inference_endpoints_hardware(namespace=NS)}
    assert found["aws-us-east-1-nvidia-l4-x1"].price_per_hour == 0.8
    assert found["aws-us-east-1-intel-spr-x1"].gpu_memory_gb is None
    assert found["gcp-europe-west4-nvidia-a100-x16"].status == "not_available"
    assert (
        found["gcp-europe-west4-nvidia-a100-x2"].num_accelerators,
        found["gcp-europe-west4-nvidia-a100-x2"].max_accelerators,
    ) == (2, 1)
