"""A Hugging Face endpoint against the fake service: its states, its calls, its token, and all that goes wrong."""

from __future__ import annotations

import math
import socket
import time
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import orjson
import pytest
from aiohttp import web

from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import (
    EndpointFailed,
    EndpointLost,
    EndpointRefused,
    EndpointSilent,
    FailureKind,
    OrchestratorError,
    OutOfCredit,
    RequestFailed,
    UsageError,
)
from orchestrator.domain.policy import Backoff, Policy
from orchestrator.domain.terms import Pause
from orchestrator.endpoints import EndpointSpec, HuggingFaceEndpoint, api_calls, endpoint_from, hf_calls, huggingface
from orchestrator.endpoints.api_calls import ApiTimeouts
from orchestrator.endpoints.hf_api import Management
from orchestrator.endpoints.hf_calls import Declined
from orchestrator.endpoints.hf_hardware import price_in
from orchestrator.endpoints.hf_spec import Description
from orchestrator.endpoints.hf_token import find_token
from orchestrator.ports import Endpoint
from orchestrator.wires.failures import from_platform_answer
from orchestrator.wires.huggingface import HuggingFaceWire
from tests.commands import DEADLINE
from tests.hf_rules import Script, answer_to
from tests.hf_service import HTML, INFER, JSON_STRING, MANAGE, HfService, Trouble, hf_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from orchestrator.endpoints.huggingface import HuggingFaceControl

STUCK = Script(pending=math.inf)
QUICK = ApiTimeouts(one=DEADLINE, whole=DEADLINE, backoff=Backoff(first=0.01, cap=0.05))
SPEC = EndpointSpec(
    "org/model", vendor="aws", region="us-east-1", accelerator="gpu", instance_type="nvidia-l4", instance_size="x1"
)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HfService]:
    monkeypatch.setattr(hf_calls, "API_TIMEOUTS", QUICK)
    monkeypatch.setattr(huggingface, "_BETWEEN_ARMINGS", Backoff(first=0.01, cap=0.02))
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "nobody is logged in"))
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    with hf_service() as service:
        monkeypatch.setenv("HF_TOKEN", service.token)
        monkeypatch.setenv("ORCHESTRATOR_HF_API_URL", f"{service.url}/v2")
        monkeypatch.setenv("HF_ENDPOINT", service.url)
        yield service


def patient(monkeypatch: pytest.MonkeyPatch, one: float, whole: float) -> None:
    monkeypatch.setattr(hf_calls, "API_TIMEOUTS", replace(QUICK, one=one, whole=whole))


def spec_in(state: dict[str, Any]) -> dict[str, Any]:
    return {"compute": {"scaling": state}}


async def until(control: HuggingFaceControl, state: EndpointState) -> None:
    with anyio.fail_after(DEADLINE):
        while await control.state() is not state:
            await anyio.sleep(0.01)


async def until_it_answers(control: HuggingFaceControl) -> None:
    with anyio.fail_after(DEADLINE):
        while not (await control.state() is EndpointState.AWAKE and await control.answers()):
            await anyio.sleep(0.01)


async def test_a_token_in_the_providers_message_is_hidden(service: HfService) -> None:
    service.add("model", "paused", Script(fails=f"login with {service.token} failed"))
    async with HuggingFaceEndpoint("acme/model").control() as control:
        async with Management.open("acme") as management:
            await management.resume("model")
        await until(control, EndpointState.FAILED)
        assert control.status_text == "failed: login with *** failed"


# -- states ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "state", "said"),
    [
        ("paused", EndpointState.PAUSED, "paused"),
        ("scaledToZero", EndpointState.SCALED_TO_ZERO, "scaledToZero"),
        ("pending", EndpointState.STARTING, "pending, 0 of 1 replicas ready"),
        ("initializing", EndpointState.STARTING, "initializing, 0 of 1 replicas ready"),
        ("updating", EndpointState.STARTING, "updating, 0 of 1 replicas ready"),
        ("running", EndpointState.AWAKE, "running, 1 of 1 replicas ready"),
        ("updateFailed", EndpointState.FAILED, "updateFailed: the provider does not say why"),
        ("hibernating", EndpointState.STARTING, "hibernating, 0 of 0 replicas ready"),
        ("deleted", EndpointState.GONE, "not there"),
    ],
)
async def test_the_providers_states_map_to_ours(
    service: HfService, shown: str, state: EndpointState, said: str
) -> None:
    service.add("model", shown, STUCK)
    async with HuggingFaceEndpoint("acme/model").control() as control:
        assert control.status_text == "not looked at yet"
        assert await control.state() is state
        assert control.status_text == said


async def test_a_failed_endpoint_says_why(service: HfService) -> None:
    service.add("model", "running")
    service.fail("model", "CUDA out\n of memory")
    async with HuggingFaceEndpoint("acme/model").control() as control:
        assert await control.state() is EndpointState.FAILED
        assert control.status_text == "failed: CUDA out of memory"
        assert not await control.answers()


@pytest.mark.usefixtures("service")
async def test_an_endpoint_that_the_token_may_not_see_does_not_count_as_deleted() -> None:
    async with HuggingFaceEndpoint("elsewhere/model").control() as control:
        with pytest.raises((EndpointFailed, EndpointRefused), match="elsewhere"):
            await control.state()


async def test_a_token_that_may_manage_but_not_send_requests_is_refused_while_waiting(
    service: HfService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.add("model", "running")
    service.grant("hf_manager", MANAGE)
    monkeypatch.setenv("HF_TOKEN", "hf_manager")
    async with HuggingFaceEndpoint("acme/model").control() as control:
        await control.state()
        with pytest.raises(EndpointRefused, match=r"infer\.write"):
            await control.answers()


async def test_an_endpoint_is_woken_asked_and_paused(service: HfService) -> None:
    service.add("model", script=Script(bad_gateway=0.05))
    endpoint = HuggingFaceEndpoint("model", namespace="acme")
    assert isinstance(endpoint, Endpoint)
    assert endpoint.name == "acme/model"
    async with endpoint.control() as control:
        assert control.look_every >= 2.0
        assert await control.state() is EndpointState.PAUSED
        assert not await control.answers()  # though it has kept its URL
        await control.resume()
        with anyio.fail_after(DEADLINE):
            while not await control.answers():
                await anyio.sleep(0.01)
        await until(control, EndpointState.AWAKE)
        async with control.connect(Policy(batch_size=2)) as model:
            assert (model.max_in_flight, model.limits.items) == (None, 2)
            assert await model.ask([b'"one"', b'"two"']) == [answer_to("one"), answer_to("two")]
        await control.pause()
        await control.pause()
        with anyio.fail_after(DEADLINE):
            while await control.state() is not EndpointState.PAUSED:
                await anyio.sleep(0.01)
    assert all(call.ours for call in service.calls())
    assert service.calls("^GET .*/health$")


async def test_checking_the_data_plane_sends_nothing_to_the_provider(service: HfService) -> None:
    service.add("model", "running")
    async with HuggingFaceEndpoint("acme/model").control() as control:
        assert not await control.answers()  # no URL is known yet
        await control.state()
        asked = len(service.calls(" /v2/"))
        assert await control.answers()
        service.trouble(Trouble("/health", status=204))
        assert not await control.answers()
        assert len(service.calls(" /v2/")) == asked


async def test_a_health_route_that_hangs_or_does_not_exist_is_not_an_answer(
    service: HfService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_calls, "PROBE_TIMEOUT", 0.1)
    service.add("model", "running")
    async with HuggingFaceEndpoint("acme/model").control() as control:
        await control.state()
        service.trouble(Trouble("/health", hang=True))
        assert not await control.answers()
        assert control._shown is not None
        with socket.create_server(("127.0.0.1", 0)) as nobody:
            url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        control._shown = replace(control._shown, url=url)
        assert not await control.answers()


# -- resume and the provider's timer ----------------------------------------------------------------------------------


async def test_replicas_that_a_resume_resets_are_restored_and_read_back(service: HfService) -> None:
    service.add("model", **spec_in({"minReplica": 1, "maxReplica": 3, "scaleToZeroTimeout": 45}))
    async with HuggingFaceEndpoint("acme/model").control() as control:
        await control.state()
        await control.resume()
    scaling = service.endpoint("model").scaling
    assert (scaling["minReplica"], scaling["maxReplica"], scaling["scaleToZeroTimeout"]) == (0, 3, 45)
    assert scaling["measure"] == {"pendingRequests": 1.5}
    verbs = [str(call).replace("/v2/endpoint/acme/model", "") for call in service.calls("endpoint")]
    assert verbs == ["GET ", "POST /resume", "PUT ", "GET "]


async def test_a_timer_that_is_set_is_left_alone(service: HfService) -> None:
    armed = spec_in({"minReplica": 0, "maxReplica": 2, "scaleToZeroTimeout": 60})
    service.add("model", script=Script(resume_resets_scaling=False), **armed)
    async with HuggingFaceEndpoint("acme/model").control() as control:
        await control.resume()
    assert not service.calls("PUT")
    assert len(service.calls("GET .*/endpoint/")) == 2  # before, and to be sure


async def test_a_missing_timer_is_set_unless_it_is_to_be_left_alone(
    service: HfService,
) -> None:
    for name, minutes in (("armed", 20), ("alone", None)):
        service.add(name)
        async with HuggingFaceEndpoint(f"acme/{name}", scale_to_zero_minutes=minutes).control() as control:
            await control.state()
            await control.resume()
        assert service.endpoint(name).scaling["scaleToZeroTimeout"] == minutes
    assert not service.calls("PUT .*alone")


@pytest.mark.parametrize("status", [200, 400])
async def test_a_timer_that_cannot_be_set_is_reported(service: HfService, status: int) -> None:
    service.add("model", script=STUCK)
    body = orjson.dumps({"error": "not now", "status": {"state": "pending"}})
    service.trouble(Trouble("PUT", status=status, body=body))
    async with HuggingFaceEndpoint("acme/model").control() as control:
        await control.state()
        with pytest.raises(EndpointFailed, match=r"timer could not be set.*scale_to_zero_minutes=None") as failure:
            await control.resume()
        assert ("not now" in str(failure.value)) == (status == 400)
    assert len(service.calls("PUT")) == 4


async def test_a_deletion_while_the_timer_is_being_set_is_reported(service: HfService) -> None:
    service.add("model")
    async with HuggingFaceEndpoint("acme/model").control() as control:
        await control.state()
        service.trouble(Trouble("GET .*/model$", status=404))
        with pytest.raises(EndpointFailed, match="was deleted"):
            await control.resume()


async def test_resuming_a_running_endpoint_succeeds(service: HfService) -> None:
    service.add("model")
    service.trouble(Trouble("resume", after=True, times=1))  # it takes effect, the answer is lost
    async with HuggingFaceEndpoint("acme/model").control() as control:
        await control.state()
        await control.resume()
        await until_it_answers(control)
    assert [call.status for call in service.calls("resume")] == [503, 400]
    assert service.endpoint("model").scaling["scaleToZeroTimeout"] == 15


async def test_a_request_wakes_an_endpoint_that_is_scaled_to_zero(service: HfService) -> None:
    service.add("model", "scaledToZero")
    service.trouble(Trouble("resume", status=400, body=b'{"error":"Bad Request: Endpoint is already running"}'))
    async with HuggingFaceEndpoint("acme/model", pause="scale_to_zero").control() as control:
        assert await control.state() is EndpointState.SCALED_TO_ZERO
        await control.resume()
        await until_it_answers(control)
        await control.pause(to_zero=True)
        await until(control, EndpointState.SCALED_TO_ZERO)
        await control.pause(to_zero=True)  # refused, since it sleeps
        assert await control.state() is EndpointState.SCALED_TO_ZERO
    assert not service.calls("/pause$")


async def test_an_endpoint_that_cannot_be_scaled_to_zero_is_paused(service: HfService) -> None:
    service.add("model", "running")
    service.fail("model", "crashed")
    async with HuggingFaceEndpoint("acme/model").control() as control:
        await control.pause(to_zero=True)
        await until(control, EndpointState.PAUSED)


async def test_a_resume_that_is_refused_says_why(service: HfService) -> None:
    service.add("model")
    service.trouble(Trouble("resume", status=400, body=b'{"error":"quota exceeded"}'))
    async with HuggingFaceEndpoint("acme/model").control() as control:
        await control.state()
        with pytest.raises(EndpointFailed, match="quota exceeded"):
            await control.resume()
        service.calm()
        service.delete("model")
        with pytest.raises(EndpointFailed, match="no such endpoint"):
            await control.resume()
        assert await control.state() is EndpointState.GONE
        with pytest.raises(EndpointFailed, match="there is no endpoint acme/model"):
            await control.resume()
        await control.pause()


async def test_after_a_conflict_the_call_is_repeated_and_the_state_checked(service: HfService) -> None:
    service.add("model")
    conflict = Trouble("POST", status=409, body=b'{"error":"busy"}')
    service.trouble(replace(conflict, times=2))
    async with HuggingFaceEndpoint("acme/model").control() as control:
        await control.resume()
        service.trouble(conflict)
        await control.resume()  # it is no longer paused, so that is all right
        with pytest.raises(EndpointSilent, match=r"cannot be paused yet: .*busy"):
            await control.pause()
        service.calm()
        await control.pause()
        await until(control, EndpointState.PAUSED)
        service.trouble(conflict)
        with pytest.raises(Declined, match="busy"):
            await control.resume()


# -- what the endpoint is ---------------------------------------------------------------------------------------------


def test_a_name_may_include_its_namespace() -> None:
    named = HuggingFaceEndpoint("acme/model")
    assert (named.name, named.namespace) == ("acme/model", "acme")
    assert named == HuggingFaceEndpoint("model", namespace="acme") == replace(named, linger=0.0)
    assert HuggingFaceEndpoint("model").name == "model"


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "My Model"},
        {"name": "../other"},
        {"name": "a/b/c"},
        {"name": "acme/model", "namespace": "other"},
        {"name": "model", "namespace": "a b"},
        {"name": "model", "namespace": ""},
        {"pause": "sometimes"},
        {"linger": -1},
        {"startup_timeout": 0},
        {"price_per_hour": "cheap"},
        {"scale_to_zero_minutes": 5},
        {"scale_to_zero_minutes": True},
        {"path": "predict"},
        {"token_env": ""},
        {"lifecycle": "short"},
        {"create": SPEC},
        {"lifecycle": "ephemeral", "create": SPEC, "pause": "never"},
    ],
)
def test_invalid_settings_are_refused_in_one_line(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".") as refusal:
        HuggingFaceEndpoint(**{"name": "model"} | settings)
    assert "\n" not in str(refusal.value)


def test_the_identity_is_everything_that_affects_an_answer() -> None:
    wire = HuggingFaceWire({"top_k": 2})
    endpoint = HuggingFaceEndpoint("acme/model", wire=wire, path="/predict", linger=5)
    identity = endpoint.identity(Policy())
    assert identity == {
        "kind": "huggingface",
        "model": "acme/model",
        "wire": "huggingface",
        "parameters": {"top_k": 2},
        "lists": False,
        "path": "/predict",
    }
    assert replace(endpoint, linger=9, api_url="https://elsewhere").identity(Policy(concurrency=9)) == identity
    assert endpoint.identity(Policy(batch_size=2))["lists"] is True
    assert replace(endpoint, model="org/model").identity(Policy())["model"] == "org/model"
    made = HuggingFaceEndpoint("acme/one", lifecycle="ephemeral", create=replace(SPEC, revision="v1"))
    assert made.identity(Policy())["model"] == "org/model@v1"
    with pytest.raises(UsageError, match="create="):
        replace(made, create=None).identity(Policy())


async def test_an_endpoint_that_serves_another_model_is_not_touched(service: HfService) -> None:
    service.add("model", model={"repository": "org/other"})
    async with HuggingFaceEndpoint("acme/model", model="org/model").control() as control:
        with pytest.raises(EndpointFailed, match="serves org/other, not org/model"):
            await control.state()
    assert not service.calls("POST|PUT|DELETE")


async def test_no_request_is_sent_if_the_model_is_replaced_during_a_run(service: HfService) -> None:
    service.add("model", "running")
    async with HuggingFaceEndpoint("acme/model", model="org/model").control() as control:
        await control.state()
        async with Management.open("acme") as management:
            await management.update("model", {"model": {"repository": "org/other"}})
        await until(control, EndpointState.AWAKE)
        with pytest.raises(EndpointFailed, match="org/other"):
            async with control.connect(Policy()):
                pass


async def test_an_endpoint_without_a_url_cannot_be_used(service: HfService) -> None:
    service.add("model", "pending", STUCK)
    async with HuggingFaceEndpoint("acme/model").control() as control:
        await control.state()
        assert not await control.answers()
        with pytest.raises(EndpointLost):
            async with control.connect(Policy()):
                pass


# -- terms ------------------------------------------------------------------------------------------------------------


async def test_terms_have_the_price_and_what_another_process_needs(service: HfService) -> None:
    service.add("model", "running", compute={"accelerator": "gpu", "instanceType": "nvidia-l4", "instanceSize": "x1"})
    async with HuggingFaceEndpoint("acme/model", pause="always", linger=7).control() as control:
        assert control.terms.endpoint == "acme/model"  # known before the first look
        await control.state()
        assert await control.price() == 0.8
        terms = control.terms
    assert (terms.pause, terms.linger, terms.price_per_hour) == (Pause.ALWAYS, 7, None)
    kept = orjson.dumps(terms.pause_with)
    assert service.token.encode() not in kept
    async with endpoint_from(orjson.loads(kept)).control() as control:
        await control.pause()
        with anyio.fail_after(DEADLINE):
            while await control.state() is not EndpointState.PAUSED:
                await anyio.sleep(0.01)
    assert len(service.calls("provider")) == 1  # who pauses does not ask for prices


async def test_only_an_unusual_token_variable_or_api_url_is_stored_for_the_pause(
    service: HfService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ORCHESTRATOR_HF_API_URL")
    monkeypatch.setenv("MINE", service.token)
    async with HuggingFaceEndpoint("acme/model").control() as control:
        assert control.terms.pause_with == {"kind": "huggingface", "name": "acme/model"}
    here = f"{service.url}/v2"
    async with HuggingFaceEndpoint("acme/model", token_env="MINE", api_url=here).control() as control:
        assert control.terms.pause_with == {
            "kind": "huggingface",
            "name": "acme/model",
            "token_env": "MINE",
            "api_url": here,
        }


@pytest.mark.parametrize(
    "trouble", [Trouble("provider"), Trouble("provider", status=403), Trouble("provider", hang=True)]
)
async def test_a_price_that_cannot_be_read_is_requested_only_once(
    service: HfService, monkeypatch: pytest.MonkeyPatch, trouble: Trouble
) -> None:
    patient(monkeypatch, 0.2, 5)
    service.add("model", "running")
    service.trouble(trouble)
    async with HuggingFaceEndpoint("acme/model").control() as control:
        assert await control.state() is EndpointState.AWAKE
        assert await control.price() is None
    assert len(service.calls("provider")) == 1


@pytest.mark.parametrize("catalogue", [{}, {"vendors": 5}, {"vendors": [{"name": "aws", "regions": [None]}]}])
def test_a_price_list_in_another_format_has_no_price(catalogue: object) -> None:
    assert price_in(catalogue, SPEC.hardware) is None


# -- the token --------------------------------------------------------------------------------------------------------


async def test_the_token_is_found_where_the_library_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UsageError, match=r"set the environment variable HF_TOKEN, or run `hf auth login`"):
        await find_token()
    places = [
        ("", "", ".cache/huggingface/token"),
        ("XDG_CACHE_HOME", "xdg", "xdg/huggingface/token"),
        ("HF_HOME", "home", "home/token"),
        ("HF_TOKEN_PATH", "file", "file"),
    ]
    for variable, folder, name in places:
        if variable:
            monkeypatch.setenv(variable, str(tmp_path / folder))
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"hf_from_{folder}\n")
        token = await find_token()
        assert (token.value, token.source) == (f"hf_from_{folder}", str(path))
    for variable in ("HUGGING_FACE_HUB_TOKEN", "HF_TOKEN"):
        monkeypatch.setenv(variable, f" {variable}\n")
        assert (await find_token()).value == variable
    with pytest.raises(UsageError, match="MINE") as absence:
        await find_token("MINE")
    assert "hf auth login" not in str(absence.value)
    monkeypatch.setenv("MINE", "hf_mine")
    token = await find_token("MINE")
    assert token.value == "hf_mine"
    assert "hf_mine" not in repr(token)


async def test_a_login_file_that_cannot_be_read_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path))
    with pytest.raises(UsageError, match="cannot read the Hugging Face token"):
        await find_token()


async def test_an_invalid_token_is_reported_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_se cret")
    with pytest.raises(UsageError, match="HF_TOKEN holds is not a token") as refusal:
        await find_token()
    assert "cret" not in str(refusal.value)


async def test_without_a_token_nothing_is_sent(service: HfService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UsageError, match="hf auth login"):
        async with HuggingFaceEndpoint("acme/model").control():
            pass
    assert not service.calls()


async def test_a_token_without_permission_is_refused_with_the_remedy_and_never_shown(
    service: HfService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.add("model")
    service.grant("hf_readOnly", INFER)
    monkeypatch.setenv("HF_TOKEN", "hf_readOnly")
    texts = []
    async with HuggingFaceEndpoint("acme/model").control() as control:
        await control.state()
        with pytest.raises(EndpointRefused, match=r"scope inference\.endpoints\.write.*HF_TOKEN") as scope:
            await control.resume()
        service.revoke("hf_readOnly")
        with pytest.raises(EndpointRefused, match=r"401.*HF_TOKEN.*hf auth login") as revoked:
            await control.state()
        service.trouble(Trouble(status=400, body=b'{"error":"bad token hf_readOnly"}', times=1))
        with pytest.raises(EndpointFailed, match=r"bad token \*\*\*") as repeated:
            await control.state()
        texts = [str(error.value) + repr(error.value) for error in (scope, revoked, repeated)]
        texts += [
            repr(control),
            repr(control._management),
            repr(control._management.calls.token),
            repr(control._endpoint),
        ]
    assert not any("hf_readOnly" in text or "\n" in text for text in texts)


async def test_an_account_that_cannot_pay_is_reported(service: HfService) -> None:
    service.add("model")
    async with Management.open("acme") as management:
        service.trouble(Trouble(status=403, body=b'{"error":"Payment method required for namespace acme"}', times=1))
        with pytest.raises(EndpointRefused, match="add a payment method"):
            await management.create(SPEC.body("other"))
        service.trouble(Trouble(status=402, times=1))
        with pytest.raises(OutOfCredit):
            await management.resume("model")


@asynccontextmanager
async def serving(*routes: web.RouteDef) -> AsyncIterator[str]:
    """A small server of one test's own."""
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_the_default_namespace_is_the_token_owners(service: HfService, monkeypatch: pytest.MonkeyPatch) -> None:
    service.add("model")
    heard = []

    async def whoami(request: web.Request) -> web.Response:
        heard.append(request.headers["Authorization"])
        return web.json_response({"type": "user", "name": "acme"} if len(heard) > 1 else {"type": "user"})

    async with serving(web.get("/api/whoami-v2", whoami)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub)
        async with HuggingFaceEndpoint("model").control() as control:
            assert control.terms.endpoint == control.terms.pause_with["name"] == "acme/model"
            assert await control.state() is EndpointState.PAUSED
    assert heard == [f"Bearer {service.token}"] * 2


async def test_a_redirect_is_not_followed(service: HfService) -> None:
    heard = []

    async def elsewhere(request: web.Request) -> web.Response:
        heard.append(request.path)
        raise web.HTTPTemporaryRedirect(f"{service.url}{request.path}")

    service.add("model", "running")
    async with serving(web.route("*", "/{path:.*}", elsewhere)) as url:
        async with HuggingFaceEndpoint("acme/model", api_url=f"{url}/v2").control() as control:
            with pytest.raises(EndpointRefused, match="redirect"):
                await control.state()
        async with HuggingFaceEndpoint("acme/model").control() as control:
            await control.state()
            assert control._shown is not None
            control._shown = replace(control._shown, url=url)
            assert not await control.answers()
            async with control.connect(Policy()) as model:
                with pytest.raises(EndpointRefused, match="redirect"):
                    await model.ask([b'"one"'])
    assert heard == ["/v2/endpoint/acme/model", "/health", "/"]
    assert not service.calls("POST|/health")


async def test_a_token_is_not_sent_unencrypted(service: HfService, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("http://example.com/v2", "ftp://example.com", "example.com", "", "http://[::1"):
        with pytest.raises(UsageError, match="api_url must be an https URL"):
            async with HuggingFaceEndpoint("acme/model", api_url=url).control():
                pass
    service.add("model", "running")
    async with HuggingFaceEndpoint("acme/model").control() as control:
        await control.state()
        assert control._shown is not None
        control._shown = replace(control._shown, url="http://example.com")
        with pytest.raises(EndpointFailed, match=r"example\.com.*unencrypted"):
            await control.answers()
        with pytest.raises(EndpointFailed, match="unencrypted"):
            async with control.connect(Policy()):
                pass
    monkeypatch.setenv("HF_ENDPOINT", "http://example.com")
    with pytest.raises(UsageError, match="HF_ENDPOINT"):
        async with HuggingFaceEndpoint("model").control():
            pass


# -- trouble ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trouble",
    [
        Trouble(status=503),
        Trouble(status=500, after=True),
        Trouble(status=502, body=HTML),
        Trouble(status=200, body=HTML),
        Trouble(status=200, body=JSON_STRING),
        Trouble(status=500, body=JSON_STRING),
        Trouble(status=200, body=b"[]"),
        Trouble(status=200, body=b"{}"),
        Trouble(status=200, body=b'{"status":{"state":"running","url":"no url"}}'),
        Trouble(status=408),
        Trouble(status=429, retry_after=0.01),
    ],
    ids=lambda trouble: f"{trouble.status} {trouble.body[:20].decode()}",
)
async def test_three_in_ten_calls_may_fail(service: HfService, trouble: Trouble) -> None:
    service.add("model")
    service.trouble(replace(trouble, pattern="/v2/endpoint/", fraction=0.3))
    async with HuggingFaceEndpoint("acme/model").control() as control:
        for _ in range(4):
            await control.state()
            await control.resume()
            await until_it_answers(control)
            await control.pause()
            await until(control, EndpointState.PAUSED)


async def test_a_rate_limit_is_waited_out(service: HfService) -> None:
    service.add("model")
    service.trouble(Trouble(status=429, retry_after=0.3, times=1))
    begun = time.monotonic()
    async with Management.open("acme") as management:
        assert await management.get("model")
    assert time.monotonic() - begun >= 0.3


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (Trouble(hang=True), "nothing within 0.05 s"),
        (Trouble(status=503), r"503 \(Service Unavailable\)"),
        (Trouble(status=200, body=HTML), "502 Bad Gateway"),
        (Trouble(status=429, retry_after=60), "429"),
    ],
)
async def test_silence_ends_at_the_deadline_with_the_last_failure(
    service: HfService, monkeypatch: pytest.MonkeyPatch, trouble: Trouble, words: str
) -> None:
    patient(monkeypatch, 0.05, 0.4)
    service.add("model")
    service.trouble(trouble)
    async with HuggingFaceEndpoint("acme/model").control() as control:
        with pytest.raises(EndpointSilent, match=words) as silence:
            await control.state()
    assert f"{service.url}/v2/endpoint/acme/model" in str(silence.value)


async def test_an_unreachable_api_is_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    timeouts = ApiTimeouts(one=0.2, whole=0.3, backoff=Backoff(first=0.05))
    async with Management.open("acme", api_url=url, timeouts=timeouts) as management:
        with pytest.raises(EndpointSilent, match="onnect"):
            await management.get("model")


# -- the rest of the protocol -----------------------------------------------------------------------------------------


async def test_the_list_follows_its_pages(service: HfService) -> None:
    service._page_size = 2
    for number in range(5):
        service.add(f"model-{number}")
    async with Management.open("acme") as management:
        assert [one.name for one in await management.list()] == [f"model-{number}" for number in range(5)]
        endless = orjson.dumps({"items": [], "nextCursor": "same"})
        service.trouble(Trouble("GET", status=200, body=endless, times=10))
        assert await management.list() == ()
        service.calm()
        service.trouble(Trouble("GET", status=200, body=b'{"items":{}}', times=1))
        assert len(await management.list()) == 5


async def test_an_endpoint_is_created_changed_and_deleted(service: HfService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_OF_MINE", "s3cret")
    spec = replace(
        SPEC,
        image={"url": "ghcr.io/org/server", "port": 80},
        args=["--fast"],
        env={"A": "1"},
        secrets={"KEY": "KEY_OF_MINE"},
        scaling_metric="pendingRequests",
        scaling_threshold=2.0,
        tags=["mine"],
    )
    body = spec.body("new", "more")
    assert body["model"]["image"] == {"custom": spec.image}
    assert body["model"]["secrets"] == {"KEY": "s3cret"}
    assert "s3cret" not in repr(spec)
    assert not {"command", "task"} & body["model"].keys()
    assert "tags" not in SPEC.body("plain")
    async with Management.open("acme") as management:
        made = await management.create(body)
        assert (made.tags, made.hardware, made.scaling) == (("mine", "more"), SPEC.hardware, SPEC.scaling)
        assert (made.document["type"], made.repository) == ("private", "org/model")
        with pytest.raises(Declined, match=r"409.*already exists"):
            await management.create(body)
        changed = await management.update("new", {"compute": {"scaling": {"maxReplica": 7}}})
        assert changed.scaling.max_replica == 7
        assert (await management.providers())["vendors"]
        await management.delete("new")
        assert await management.get("new") is None
        service.trouble(Trouble("POST", after=True, times=1))
        assert (await management.create(body)).name == "new"  # the try whose answer was lost made it
        for name in ("", "a/../b", "UP"):
            with pytest.raises(UsageError, match="not the name"):
                await management.get(name)
        management.calls.namespace = "../x"
        with pytest.raises(UsageError, match="account"):
            await management.list()
    monkeypatch.delenv("KEY_OF_MINE")
    with pytest.raises(UsageError, match=r"secret KEY is missing.*KEY_OF_MINE"):
        spec.body("new")


@pytest.mark.parametrize(
    "changes",
    [
        {"min_replica": 2},
        {"max_replica": 0},
        {"scale_to_zero_timeout": 14},
        {"type": "protected"},
        {"scaling_metric": "pendingRequests"},
        {"scaling_metric": "mood", "scaling_threshold": 1.0},
    ],
)
def test_an_invalid_specification_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        replace(SPEC, **changes)


async def test_logs_are_lines_and_can_be_followed(service: HfService) -> None:
    service.add("model", "running")
    for line in ("first", "second", "third"):
        service.log("model", line)
    async with Management.open("acme") as management:
        assert [line.split()[-1] async for line in management.logs("model", tail=2)] == ["second", "third"]
        assert [line async for line in management.logs("model", replica="9")] == []
        async with aclosing(management.logs("model", follow=True, tail=1)) as lines:
            assert (await anext(lines)).endswith("third")
            service.log("model", "fourth")
            assert (await anext(lines)).endswith("fourth")
        with pytest.raises(Declined, match="404"):
            await anext(management.logs("other"))
        assert "# EOF" in await management.open_metrics("model")


async def test_a_log_without_line_ends_or_that_hangs_ends(service: HfService) -> None:
    service.add("model", "running")
    enough = anyio.Event()

    async def log(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"one\ntw")
        if request.query:
            await enough.wait()
        await response.write(b"o")
        return response

    async with (
        serving(web.get("/endpoint/acme/model/logs", log)) as url,
        Management.open("acme", api_url=url, timeouts=ApiTimeouts(one=0.2)) as management,
    ):
        assert [line async for line in management.logs("model")] == ["one", "two"]
        with pytest.raises(EndpointSilent, match="broke off"):
            assert [line async for line in management.logs("model", tail=3)]
        enough.set()


def test_a_description_tolerates_missing_fields_but_not_malformed_ones() -> None:
    bare = Description.read({"status": {"state": "paused", "url": None}, "healthRoute": "ping", "tags": None})
    assert (bare.url, bare.health_route, bare.tags, bare.ready) == (None, "/ping", (), None)
    broken: list[object] = [{}, [], {"status": {"state": 3}}, {"status": {"state": "x", "url": "/path"}}]
    for nonsense in broken:
        with pytest.raises(ValueError, match=r"."):
            Description.read(nonsense)


# -- ephemeral --------------------------------------------------------------------------------------------------------


async def test_an_ephemeral_endpoint_is_created_and_deleted(service: HfService) -> None:
    endpoint = HuggingFaceEndpoint("acme/brief", lifecycle="ephemeral", create=SPEC)
    async with endpoint.control() as control:
        assert await control.state() is EndpointState.PAUSED
        assert control.status_text == "not created yet"
        assert (await control.price(), control.terms.pause) == (0.8, Pause.ALWAYS)
        await control.resume()
        await until_it_answers(control)
        scaling = service.endpoint("brief").scaling
        assert (scaling["minReplica"], scaling["scaleToZeroTimeout"]) == (0, 15)
        assert not service.calls("PUT")
        await control.pause(to_zero=True)
        assert await control.state() is EndpointState.PAUSED
        assert control.status_text == "deleted"
        await control.pause()
    assert service.endpoint("brief").state == "deleted"


async def test_any_process_that_finds_the_debt_deletes_the_ephemeral_endpoint_of_a_dead_run(
    service: HfService,
) -> None:
    endpoint = HuggingFaceEndpoint("acme/brief", lifecycle="ephemeral", create=SPEC)
    async with endpoint.control() as control:
        await control.resume()
        pause_with = control.terms.pause_with
    async with endpoint.control() as control:  # a next run uses it as it stands
        assert await control.state() is not EndpointState.PAUSED
    async with endpoint_from(pause_with).control() as other:
        await other.pause()
        assert await other.state() is EndpointState.PAUSED
    assert service.endpoint("brief").state == "deleted"


async def test_an_endpoint_that_no_run_created_is_never_deleted(service: HfService) -> None:
    service.add("precious", "running")
    endpoint = HuggingFaceEndpoint("acme/precious", lifecycle="ephemeral", create=SPEC)
    async with endpoint.control() as control:
        with pytest.raises(EndpointFailed, match="not created by a run"):
            await control.state()
        with pytest.raises(EndpointRefused, match="left alone"):
            await control.pause()
    async with endpoint.control() as control:
        service.trouble(Trouble("GET .*/precious", status=404, times=2))  # somebody is quicker
        assert await control.state() is EndpointState.PAUSED
        with pytest.raises(EndpointFailed, match="not created by a run"):
            await control.resume()
    async with endpoint.control() as control:
        service.trouble(Trouble("GET .*/precious", status=404, times=3))
        assert await control.state() is EndpointState.PAUSED
        with pytest.raises(EndpointFailed, match="already exists"):
            await control.resume()
    assert not service.calls("DELETE|/pause|/resume|PUT")


async def test_an_ephemeral_endpoint_that_another_run_has_just_created_is_shared(service: HfService) -> None:
    endpoint = HuggingFaceEndpoint("acme/brief", lifecycle="ephemeral", create=SPEC)
    async with endpoint.control() as first, endpoint.control() as second:
        await first.resume()
        service.trouble(Trouble("GET .*/brief", status=404, times=2))
        await second.state()
        await second.resume()
        await until_it_answers(second)
    assert [call.status for call in service.calls("POST")] == [200, 409]


async def test_a_creation_that_is_refused_says_why(service: HfService) -> None:
    service.trouble(Trouble("POST", status=409, body=b'{"error":"name is reserved"}'))
    async with HuggingFaceEndpoint("acme/brief", lifecycle="ephemeral", create=SPEC).control() as control:
        with pytest.raises(EndpointFailed, match="name is reserved"):
            await control.resume()


async def test_a_deletion_that_is_refused_is_tried_again(service: HfService) -> None:
    endpoint = HuggingFaceEndpoint("acme/brief", lifecycle="ephemeral", create=SPEC)
    async with endpoint.control() as control:
        await control.resume()
        service.trouble(Trouble("DELETE", status=400, body=b'{"error":"not now"}'))
        with pytest.raises(EndpointSilent, match="not now"):
            await control.pause()
        service.calm()
        await control.pause()
    assert service.endpoint("brief").state == "deleted"


# -- what the platform answers on the data plane ----------------------------------------------------------------------

REJECTED = (RequestFailed, FailureKind.REJECTED)
DUBIOUS = (RequestFailed, FailureKind.DUBIOUS)
UNAVAILABLE = (RequestFailed, FailureKind.UNAVAILABLE)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"error": "Bad Request: The endpoint is paused, ask a maintainer", "code": "BAD_REQUEST"}, EndpointLost),
        (400, {"error": "Bad Request: Invalid state", "code": "BAD_REQUEST"}, EndpointLost),
        (400, {"error": "Bad Request: Your endpoint is in error, check", "code": "BAD_REQUEST"}, EndpointLost),
        (400, {"error": "Bad Request: too long", "code": "BAD_REQUEST"}, REJECTED),
        (400, {"error": "the endpoint is paused"}, DUBIOUS),  # the server's own words: no code
        (400, {"error": "no inputs key"}, DUBIOUS),
        (503, {"error": "503 Service Unavailable", "code": "SERVICE_UNAVAILABLE"}, "starting"),
        (503, {"error": "Model x is currently loading", "estimated_time": 20.0}, "starting"),
        (503, {"error": "overload detected"}, (RequestFailed, FailureKind.RATE_LIMITED)),
        (502, HTML, EndpointLost),
        (502, b"", EndpointLost),
        (502, {"error": "upstream"}, UNAVAILABLE),
        (504, HTML, UNAVAILABLE),
        (500, {"error": "boom"}, UNAVAILABLE),
        (429, {"error": "overloaded"}, (RequestFailed, FailureKind.RATE_LIMITED)),
        (401, {"error": "401 Unauthorized", "code": "UNAUTHORIZED"}, EndpointRefused),
        (403, {"error": "missing permissions: inference.endpoints.infer.write"}, EndpointRefused),
        (404, {"error": "404 Not Found", "code": "NOT_FOUND"}, EndpointLost),
        (404, {"error": "Not Found"}, EndpointRefused),
        (402, {"error": "credits depleted"}, OutOfCredit),
        (413, b"length limit exceeded", REJECTED),
        (204, b"", UNAVAILABLE),
    ],
)
def test_answers_of_the_platform_are_distinguished_from_those_of_the_server(
    status: int, body: object, kind: object
) -> None:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    failure = from_platform_answer("https://host/", status, {}, content)
    if isinstance(failure, RequestFailed):
        assert (RequestFailed, failure.kind) == kind
    elif isinstance(failure, EndpointLost) and failure.starting:
        assert kind == "starting"
    else:
        assert type(failure) is kind


async def test_a_change_of_the_endpoint_costs_no_item_an_attempt(service: HfService) -> None:
    service.add("model", "running")
    async with HuggingFaceEndpoint("acme/model").control() as control:
        await control.state()
        async with control.connect(Policy(batch_size=2)) as model:
            assert await model.ask([b'"one"']) == [answer_to("one")]
            service.lose_replica("model", 0.2)
            with pytest.raises(EndpointLost) as lost:
                await model.ask([b'"one"'])
            assert lost.value.starting
            service.pause_from_outside("model")
            with pytest.raises(EndpointLost, match="paused"):
                await model.ask([b'"one"'])
            service.revoke()
            with pytest.raises(EndpointRefused):
                await model.ask([b'"one"'])
            service.delete("model")
            with pytest.raises(EndpointLost, match="not there"):
                await model.ask([b'"one"'])


async def test_the_missing_scope_of_a_token_that_may_only_manage_is_named(
    service: HfService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.add("model", "running")
    service.grant("hf_manager", MANAGE)
    monkeypatch.setenv("HF_TOKEN", "hf_manager")
    async with HuggingFaceEndpoint("acme/model").control() as control:
        await control.state()
        async with control.connect(Policy()) as model:
            with pytest.raises(OrchestratorError, match=r"inference\.endpoints\.infer\.write"):
                await model.ask([b'"one"'])
