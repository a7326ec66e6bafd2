"""A Hugging Face Space as an endpoint: restarted, seen by its stage, given a sleep time, asked, and paused."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import (
    EndpointFailed,
    EndpointLost,
    EndpointRefused,
    EndpointSilent,
    FailureKind,
    RequestFailed,
)
from orchestrator.domain.policy import Backoff, Policy
from orchestrator.endpoints import HuggingFaceSpaceEndpoint, endpoint_from, hf_calls, hf_space_control
from orchestrator.endpoints.api_calls import ApiTimeouts
from orchestrator.endpoints.hf_spaces_api import missing_permission
from orchestrator.testing.endpoints import until_awake
from orchestrator.wires import HuggingFaceWire
from tests.commands import DEADLINE
from tests.hf_spaces_service import PAUSED, RUNNING, SLEEPING, FakeSpace, SpacesService, spaces_service

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def reverser(**settings: Any) -> HuggingFaceSpaceEndpoint:
    return HuggingFaceSpaceEndpoint("acme/reverser", **settings)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[SpacesService]:
    monkeypatch.setattr(
        hf_calls, "API_TIMEOUTS", ApiTimeouts(one=DEADLINE, whole=DEADLINE, backoff=Backoff(0.01, cap=0.05))
    )
    monkeypatch.setattr(hf_space_control, "LOOK_EVERY", 0.02)
    monkeypatch.setattr(hf_space_control, "_BETWEEN_ARMINGS", Backoff(first=0.01, cap=0.02))
    with spaces_service() as service:
        monkeypatch.setenv("HF_TOKEN", service.token)
        monkeypatch.setenv("HF_ENDPOINT", service.url)
        yield service


@pytest.fixture
def space(service: SpacesService) -> FakeSpace:
    return service.add("reverser")


_CLIENT = """
import json
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
api, space = HfApi(), "acme/reverser"
said = {"found": [api.get_space_runtime(space).stage, api.space_info(space).host.startswith("http://127.0.0.1:")]}
restarted = api.restart_space(space)
said["restarted"] = [restarted.stage, api.wait_for_space(space, poll_interval=0.01).stage]
said["sleep"] = [api.set_space_sleep_time(space, 300).sleep_time, api.get_space_runtime(space).sleep_time]
asked = api.request_space_hardware(space, "l4x1", sleep_time=600)
said["hardware"] = [asked.requested_hardware, asked.sleep_time]
said["list"] = [one.id for one in api.list_spaces(author="acme", expand=["runtime"])]
said["prices"] = {one.name: one.unit_cost_usd for one in api.list_spaces_hardware()}
said["paused"] = [api.pause_space(space).stage, api.get_space_runtime(space).stage]
said["logs"] = list(api.fetch_space_logs(space))
said["asleep"] = api.wait_for_space("acme/asleep", poll_interval=0.01).stage
for call in (api.pause_space, api.restart_space):
    try:
        call("acme/static")
    except HfHubHTTPError as error:
        said[call.__name__] = error.response.status_code
print(json.dumps(said))
"""


def test_the_real_client_drives_the_service(service: SpacesService, space: FakeSpace) -> None:
    service.add("static", sdk="static", stage=RUNNING)
    service.add("asleep", stage=SLEEPING)
    service.starting = 0.0
    said = json.loads(subprocess.run([sys.executable, "-c", _CLIENT], check=True, capture_output=True).stdout)
    assert said == {
        "found": [PAUSED, True],
        "restarted": ["BUILDING", RUNNING],
        "sleep": [300, 300],
        "hardware": ["l4x1", 600],
        "list": ["acme/reverser", "acme/static", "acme/asleep"],
        "prices": {"cpu-basic": 0.0, "t4-small": 0.4 / 60, "l4x1": 0.8 / 60},
        "paused": [PAUSED, PAUSED],
        "logs": ["loading\n", "* Running on local URL\n"],
        "asleep": SLEEPING,  # a stage that the client does not know ends its waiting
        "pause_space": 400,
        "restart_space": 400,
    }
    assert (space.restarts, space.billed > 0) == (1, True)


_CALLS = """
from huggingface_hub import HfApi
HfApi().request_space_hardware("acme/reverser", "l4x1")
HfApi().restart_space("acme/reverser")
HfApi().set_space_sleep_time("acme/reverser", 900)
HfApi().pause_space("acme/reverser")
"""


async def test_a_space_is_changed_as_the_real_client_changes_it(service: SpacesService, space: FakeSpace) -> None:
    subprocess.run([sys.executable, "-c", _CALLS], check=True)  # noqa: ASYNC221 - the service has a thread of its own
    theirs = [call for call in service.calls if call.startswith("POST")]
    space.hardware, space.sleep = "t4-small", None
    service.calls.clear()
    async with reverser(hardware="l4x1").control() as control:
        await control.resume()
        await control.pause()
    assert [call for call in service.calls if call.startswith("POST")] == theirs
    assert [space.hardware, space.sleep] == ["l4x1", 900]


async def test_a_space_is_restarted_with_a_sleep_time_asked_and_paused(
    service: SpacesService, space: FakeSpace
) -> None:
    async with reverser().control() as control:
        assert (await control.state(), control.status_text) == (EndpointState.PAUSED, "PAUSED on t4-small")
        assert await control.price() == pytest.approx(0.4)
        service.stuck = True
        await control.resume()
        assert await control.state() is EndpointState.STARTING
        assert not await control.answers()
        service.stuck = False
        await until_awake(control)
        assert (space.sleep, space.restarts, control.status_text) == (900, 1, "RUNNING on t4-small")
        async with control.connect(Policy()) as data:
            assert await data.ask([b'"abc"']) == [{"label": "cba"}]
            assert await data.metrics() == "app_requests 1\n"
            (failure,) = [await _failure(data, b'"poison"')]
            assert (failure.kind, failure.message) == (
                FailureKind.DUBIOUS,
                "the app's function failed: no such thing",
            )
        await control.pause()
        assert (await control.state(), space.stage) == (EndpointState.PAUSED, PAUSED)
        assert not await control.answers()
    assert service.calls.count("POST /api/spaces/acme/reverser/restart") == 1


async def _failure(data: Any, request: bytes) -> RequestFailed:
    with pytest.raises(RequestFailed) as failure:
        await data.ask([request])
    return failure.value


async def test_a_server_in_a_docker_space_is_asked_with_any_wire(service: SpacesService) -> None:
    space = service.add("docker", sdk="docker")
    endpoint = HuggingFaceSpaceEndpoint("acme/docker", wire=HuggingFaceWire(), health="/health")
    async with endpoint.control() as control:
        await control.resume()
        await until_awake(control)
        async with control.connect(Policy()) as data:
            assert await data.ask([b'"abc"']) == [[{"label": "cba"}]]
        await control.pause()
    assert space.asked == ["abc"]


@pytest.mark.parametrize("private", [True, False])
async def test_the_token_goes_to_the_app_only_if_the_space_is_private(service: SpacesService, *, private: bool) -> None:
    space = service.add("reverser", private=private)
    async with reverser().control() as control:
        await control.resume()
        await until_awake(control)
        async with control.connect(Policy()) as data:
            await data.ask([b'"abc"'])
        await control.pause()
    assert set(space.tokens) == {f"Bearer {service.token}" if private else ""}


async def test_the_address_is_read_anew_at_each_waking(service: SpacesService, space: FakeSpace) -> None:
    moved = service.add("moved", stage=RUNNING)
    async with reverser().control() as control:
        for url in (space.url, moved.url):
            space.url = url
            await control.resume()
            await until_awake(control)
            async with control.connect(Policy()) as data:
                assert await data.ask([b'"abc"']) == [{"label": "cba"}]
            await control.pause()
    assert (space.asked, moved.asked) == (["abc"], ["abc"])


@pytest.mark.parametrize(
    ("stage", "state"),
    [
        ("PAUSED", EndpointState.PAUSED),
        ("STOPPED", EndpointState.PAUSED),
        ("SLEEPING", EndpointState.SCALED_TO_ZERO),
        ("RUNNING", EndpointState.AWAKE),
        ("RUNNING_BUILDING", EndpointState.STARTING),
        ("RUNNING_APP_STARTING", EndpointState.STARTING),
        ("NO_APP_FILE", EndpointState.FAILED),
        ("CONFIG_ERROR", EndpointState.FAILED),
        ("BUILD_ERROR", EndpointState.FAILED),
        ("RUNTIME_ERROR", EndpointState.FAILED),
        ("DELETING", EndpointState.GONE),
        ("HIBERNATING", EndpointState.SCALED_TO_ZERO),
    ],
)
async def test_each_stage_is_a_state_and_an_unknown_one_is_not_running(
    service: SpacesService, space: FakeSpace, stage: str, state: EndpointState
) -> None:
    space.stage = stage
    async with reverser().control() as control:
        assert await control.state() is state
        assert await control.answers() is (stage.startswith("RUNNING"))
    assert service.calls[0] == "GET /api/spaces/acme/reverser/runtime"


@pytest.mark.parametrize("stage", ["SLEEPING", "STOPPED", "RUNTIME_ERROR", "BUILD_ERROR", "HIBERNATING"])
async def test_a_space_in_any_stage_without_an_app_is_restarted(space: FakeSpace, stage: str) -> None:
    space.stage = stage
    async with reverser().control() as control:
        await control.resume()
        await until_awake(control)
        await control.pause()
        assert (await control.state(), space.restarts) == (EndpointState.PAUSED, 1)


async def test_a_stage_that_nobody_knows_may_cost_money_once_we_have_restarted_or_paused(space: FakeSpace) -> None:
    async with reverser().control() as control:
        await control.resume()
        space.stage = "HIBERNATING"
        assert await control.state() is EndpointState.STARTING
        await control.pause()
        space.stage = "HIBERNATING"
        assert await control.state() is EndpointState.STARTING


@pytest.mark.parametrize("stage", ["RUNNING", "RUNNING_BUILDING", "BUILDING", "APP_STARTING"])
async def test_a_space_that_runs_or_starts_is_not_restarted(space: FakeSpace, stage: str) -> None:
    space.stage = stage
    async with reverser().control() as control:
        await control.resume()
        assert space.restarts == 0


@pytest.mark.parametrize(
    ("fails", "message"),
    [
        (
            ("BUILD_ERROR", "exit code: 1"),
            "BUILD_ERROR on t4-small: exit code: 1; `orchestrator endpoints logs {}` shows why its build failed",
        ),
        (
            ("RUNTIME_ERROR", None),
            "RUNTIME_ERROR on t4-small: the provider does not say why; `orchestrator endpoints logs {0}` shows why",
        ),
    ],
)
async def test_a_space_that_fails_says_why_and_costs_nothing_once_it_is_paused(
    service: SpacesService, space: FakeSpace, fails: tuple[str, str], message: str
) -> None:
    service.fails = fails
    async with reverser().control() as control:
        await control.resume()
        while (state := await control.state()) is EndpointState.STARTING:
            pass
        assert state is EndpointState.FAILED
        assert control.status_text.startswith(message.format("spaces/acme/reverser"))
        await control.pause()
        space.stage = fails[0]  # the pause of a Space without an app may change nothing
        assert await control.state() is EndpointState.PAUSED


async def test_a_message_of_the_app_with_the_token_is_shown_without_it(
    service: SpacesService, space: FakeSpace
) -> None:
    space.stage, space.message = "RUNTIME_ERROR", f"cannot log in with {service.token}"
    async with reverser().control() as control:
        await control.state()
        assert service.token not in control.status_text


@pytest.mark.parametrize(("found", "left"), [(None, 900), (300, 300), (86400, 900)])
async def test_the_sleep_time_is_never_longer_than_wanted(space: FakeSpace, found: int | None, left: int) -> None:
    space.sleep = found
    async with reverser().control() as control:
        await control.resume()
    assert space.sleep == left


async def test_a_sleep_time_that_does_not_last_fails_the_waking_unless_none_is_wanted(
    service: SpacesService, space: FakeSpace
) -> None:
    service.forgets_sleep_time = True
    async with reverser().control() as control:
        with pytest.raises(EndpointFailed, match="sleep time could not be set; set sleep_time=None to go on without"):
            await control.resume()
    async with reverser(sleep_time=None).control() as control:
        await control.resume()
    assert space.sleep is None


async def test_free_hardware_has_a_sleep_time_and_a_price_of_its_own(service: SpacesService) -> None:
    space = service.add("reverser", hardware="cpu-basic")
    async with reverser().control() as control:
        await control.resume()
        assert await control.price() == 0
    assert (space.sleep, any("sleeptime" in call for call in service.calls)) == (None, False)


async def test_a_space_that_runs_on_other_hardware_is_left_alone(space: FakeSpace) -> None:
    space.stage = RUNNING
    async with reverser(hardware="l4x1").control() as control:
        with pytest.raises(EndpointFailed, match="is running on t4-small, not on l4x1: pause it"):
            await control.resume()
        assert await control.price() == pytest.approx(0.8)
    assert (space.hardware, space.restarts) == ("t4-small", 0)


async def test_hardware_that_does_not_exist_is_refused_with_the_words_of_the_provider(space: FakeSpace) -> None:
    async with reverser(hardware="h900").control() as control:
        with pytest.raises(EndpointFailed, match="no hardware h900"):
            await control.resume()
    assert space.stage == PAUSED


async def test_a_restart_whose_answer_is_lost_is_not_repeated(service: SpacesService, space: FakeSpace) -> None:
    service.lose_answers = 1
    async with reverser().control() as control:
        await control.resume()
        await until_awake(control)
        await control.pause()
    assert (space.restarts, space.stage) == (1, PAUSED)


async def test_a_service_that_never_restarts_says_so(service: SpacesService, space: FakeSpace) -> None:
    service.ignores_restarts = True
    async with reverser().control() as control:
        with pytest.raises(EndpointSilent, match="no proper answer"):
            await control.resume()
    assert service.calls.count("POST /api/spaces/acme/reverser/restart") == 3


async def test_a_space_that_is_not_there_or_static_is_named(service: SpacesService) -> None:
    async with reverser().control() as control:
        assert await control.state() is EndpointState.GONE
        with pytest.raises(EndpointFailed, match="there is no Space acme/reverser: check its name"):
            await control.resume()
    service.add("reverser", sdk="static", stage=RUNNING)
    async with reverser().control() as control:
        with pytest.raises(EndpointFailed, match="is a static Space, which has no server"):
            await control.state()


async def test_a_token_that_may_not_change_the_space_is_told_what_it_lacks(
    service: SpacesService, space: FakeSpace
) -> None:
    service.forbids = True
    async with reverser().control() as control:
        assert await control.state() is EndpointState.PAUSED
        for call in (control.resume, control.pause):
            with pytest.raises(EndpointRefused, match=r"needs the scope repo\.write, and access to acme"):
                await call()
    assert space.restarts == 0


async def test_a_space_that_goes_to_sleep_while_it_is_used_is_lost(service: SpacesService, space: FakeSpace) -> None:
    async with reverser().control() as control:
        await control.resume()
        await until_awake(control)
        async with control.connect(Policy()) as data:
            space.go(SLEEPING)
            with pytest.raises(EndpointLost, match=r"nothing answers behind .* \(503\)"):
                await data.ask([b'"abc"'])
        assert await control.state() is EndpointState.SCALED_TO_ZERO
    assert service.spaces["acme/reverser"].asked == []


@pytest.mark.parametrize(
    ("status", "text", "failure", "message"),
    [
        (404, "<html>Not Found</html>", EndpointLost, r"nothing answers behind .* \(404\)"),
        (502, "<html>Bad Gateway</html>", EndpointLost, r"nothing answers behind .* \(502\)"),
        (503, "<html>Your Space is in preparation</html>", EndpointLost, r"nothing answers behind .* \(503\)"),
        (404, '{"detail": "Not Found"}', EndpointRefused, "check the URL"),
        (
            401,
            '{"detail": {"error": "Not authenticated", "auth_message": null}}',
            EndpointRefused,
            r"a login of the app itself \(auth= of Gradio\)",
        ),
        (500, '{"detail": "Internal Server Error"}', RequestFailed, "Internal Server Error"),
        (503, '{"detail": "too busy"}', RequestFailed, "too busy"),
    ],
)
async def test_what_the_proxy_answers_concerns_the_space_and_what_the_app_answers_the_item(
    service: SpacesService, space: FakeSpace, status: int, text: str, failure: type[Exception], message: str
) -> None:
    space.stage = RUNNING
    async with reverser().control() as control:
        await control.state()
        async with control.connect(Policy()) as data:
            service.answers_instead = (status, text)
            with pytest.raises(failure, match=message):
                await data.ask([b'"abc"'])


async def test_a_full_queue_makes_the_item_wait(service: SpacesService, space: FakeSpace) -> None:
    service.queue_size = 0
    async with reverser().control() as control:
        await control.resume()
        await until_awake(control)
        space.queue["of somebody else"] = "text"
        async with control.connect(Policy()) as data:
            failure = await _failure(data, b'"abc"')
    assert (failure.kind, failure.message) == (
        FailureKind.RATE_LIMITED,
        "Queue is full. Max size is 0 and size is 0.",
    )


async def test_no_token_goes_to_an_address_without_encryption(service: SpacesService, space: FakeSpace) -> None:
    space.stage, space.url = RUNNING, "http://acme-reverser.example"
    async with reverser().control() as control:
        await control.state()
        with pytest.raises(EndpointFailed, match="no token is sent there unencrypted"):
            await control.answers()
    assert service.spaces["acme/reverser"].tokens == []


async def test_what_the_ledger_keeps_finds_the_space_again(service: SpacesService, space: FakeSpace) -> None:
    async with reverser().control() as control:
        await control.resume()
        assert control.terms is not None
        assert control.terms.endpoint == "spaces/acme/reverser"
        kept = json.loads(json.dumps(control.terms.pause_with))
    assert service.token not in json.dumps(kept)
    async with endpoint_from(kept).control() as control:
        await control.pause()
    assert space.stage == PAUSED


SCOPED = {"entity": {"_id": "1", "type": "user", "name": "acme"}, "permissions": ["repo.write"]}


@pytest.mark.parametrize(
    ("account", "missing"),
    [
        ({"name": "acme"}, None),
        ({"name": "acme", "auth": {"accessToken": {"role": "write"}}}, None),
        ({"name": "acme", "auth": {"accessToken": {"role": "read"}}}, "holds a token that may only read"),
        ({"name": "ann"}, "belongs to ann, who is no member of acme"),
        ({"name": "ann", "orgs": [{"name": "acme", "roleInOrg": "admin"}]}, None),
        ({"name": "ann", "orgs": [{"name": "acme", "roleInOrg": "read"}]}, "whose role in acme is read"),
        (
            {"name": "acme", "auth": {"accessToken": {"role": "fineGrained", "fineGrained": {"scoped": [SCOPED]}}}},
            None,
        ),
        (
            {"name": "acme", "auth": {"accessToken": {"role": "fineGrained", "fineGrained": {"scoped": []}}}},
            "holds a token without the scope repo.write on acme",
        ),
    ],
)
def test_what_a_token_lacks_is_said(account: Mapping[str, Any], missing: str | None) -> None:
    said = missing_permission(account, "acme", "reverser")
    assert said is None if missing is None else said is not None and missing in said


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"space": "reverser"}, "a Space is named OWNER/NAME, not 'reverser'"),
        ({"space": "spaces/acme/reverser"}, "a Space is named OWNER/NAME"),
        ({"path": "api"}, "path must begin with /"),
        ({"health": "health"}, "health must begin with /"),
        ({"sleep_time": "soon"}, "'soon' is not a duration"),
        ({"sleep_time": "0s"}, "sleep_time must be at least a second"),
        ({"pause": "scale_to_zero"}, "pause must be if_resumed, always or never"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HuggingFaceSpaceEndpoint(**{"space": "acme/reverser"} | settings)
