"""`orchestrator endpoints`: real commands against the fake service, a real server and the user's own commands."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.terms import Spent, Terms
from orchestrator.store import Store
from tests.commands import COMMAND, until
from tests.faults.scene import guard_of, guards_of
from tests.hf_rules import Script
from tests.hf_service import INFER, MANAGE, HfService, Trouble, hf_service

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.commands import Ended, Workplace
    from tests.servers import InferenceServer

SECRET = "hunter2-of-the-container"
HARDWARE = (
    *("--vendor", "aws", "--region", "us-east-1", "--accelerator", "gpu"),
    *("--instance-type", "nvidia-l4", "--instance-size", "x1"),
)
STEPS = ("DNS", "TLS", "token", "state", "health", "wire", "latency")


@dataclass
class EndpointCli:
    """A workplace whose commands go to the fake service."""

    workplace: Workplace
    service: HfService
    env: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        api = {"HF_TOKEN": self.service.token, "ORCHESTRATOR_HF_API_URL": f"{self.service.url}/v2"}
        return {"NO_COLOR": "1", "ORCHESTRATOR_HF_CATALOG_URL": f"{self.service.url}/catalog"} | api | self.env

    def run(self, *arguments: str, **env: str) -> Ended:
        ended = self.workplace.run("endpoints", *arguments, env=self.environment() | env)
        assert "Traceback" not in ended.err
        assert self.service.token not in ended.out + ended.err
        assert SECRET not in ended.out + ended.err
        return ended

    def type(self, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command with this text typed into it."""
        command = [*COMMAND, "--db", str(self.workplace.ledger), "endpoints", *arguments]
        env = self.workplace.environment() | self.environment()
        return subprocess.run(command, input=text, env=env, check=False, capture_output=True, text=True, timeout=60)

    def config(self, text: str) -> None:
        path = self.workplace.folder / "config.toml"
        path.write_text(text)
        self.env["ORCHESTRATOR_CONFIG"] = str(path)

    def spec(self, name: str) -> dict[str, Any]:
        """Return the settings that the service was sent for it."""
        return self.service._endpoints[name].spec

    def held(self, name: str, lease: float = 600.0) -> None:
        """Let a process on another machine resume it for a run, at $3.60 an hour; it is dead once its lease ends."""

        async def hold() -> None:
            async with Store.open(str(self.workplace.ledger)) as store:
                process = await store.runs.register(host="elsewhere/1", pid=77, pid_started=0.0, lease=lease)
                terms = Terms(f"acme/{name}", {"kind": "huggingface", "name": f"acme/{name}"}, price_per_hour=3.6)
                window = await store.windows.enter(terms, process, 5, "talk")
                assert window is not None
                await store.windows.owe(window, terms, EndpointState.PAUSED)

        asyncio.run(hold())

    def windows(self) -> list[tuple[Any, ...]]:
        return self.workplace.query("SELECT endpoint, state, closed_by, said FROM awake_window ORDER BY id")


@pytest.fixture
def service() -> Iterator[HfService]:
    with hf_service(page_size=2) as service:
        yield service


@pytest.fixture
def cli(workplace: Workplace, service: HfService) -> EndpointCli:
    return EndpointCli(workplace, service)


@contextmanager
def hub(name: str) -> Iterator[str]:
    """Serve a hub that knows the owner of each token."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/api/whoami-v2" else 404)
            self.end_headers()
            self.wfile.write(b'{"type":"user","name":"%s"}' % name.encode())

        def log_message(self, *_args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def steps_of(ended: Ended) -> dict[str, str]:
    """Return the verdicts by step."""
    return {step["name"]: step["verdict"] for step in ended.json["steps"]}


def up_to(failed: str) -> dict[str, str]:
    """Return verdicts that pass up to this step, with no later step tried."""
    at = STEPS.index(failed)
    return {step: "ok" if n < at else "failed" if n == at else "not tried" for n, step in enumerate(STEPS)}


def said_by(ended: Ended, step: str) -> str:
    found: str = next(found["said"] for found in ended.json["steps"] if found["name"] == step)
    return found


# -- list and show -----------------------------------------------------------------------------------------------------


def test_the_list_follows_every_page_and_shows_prices(cli: EndpointCli) -> None:
    for number in range(5):
        cli.service.add(f"e{number}", "running" if number else "paused")
    cli.service.add("big", compute={"accelerator": "gpu", "instanceType": "nvidia-l4"})
    ended = cli.run("list", "--namespace", "acme")
    lines = ended.out.splitlines()
    assert lines[0].split() == ["name", "state", "hardware", "per", "hour", "url"]
    assert [line.split()[0] for line in lines[1:]] == [*(f"acme/e{n}" for n in range(5)), "acme/big"]
    assert lines[1].split()[1:] == ["paused", "aws", "us-east-1", "intel-spr", "x1", "$0.033", *lines[1].split()[-1:]]
    assert "nvidia-l4 x1  $0.8" in lines[-1]
    assert f"{cli.service.url}/data/acme/big" in lines[-1]
    assert len(cli.service.calls("GET /v2/endpoint/acme$")) == 3


def test_the_list_as_json_omits_missing_prices(cli: EndpointCli) -> None:
    cli.service.add("e", "failed")
    cli.service.fail("e", "CUDA out of memory")
    cli.service.trouble(Trouble("provider", status=403))
    (found,) = cli.run("list", "--namespace", "acme", "--json").json["endpoints"]
    assert (found["name"], found["state"], found["message"]) == ("acme/e", "failed", "CUDA out of memory")
    assert found["hardware"]["instance_type"] == "intel-spr"
    assert found["price_per_hour"] is None


def test_the_default_namespace_is_that_of_the_token(cli: EndpointCli) -> None:
    with hub("acme") as url:
        assert cli.run("list", HF_ENDPOINT=url).out == "acme has no endpoints\n"
        cli.service.add("e")
        assert "endpoint: acme/e\n" in cli.run("show", "e", HF_ENDPOINT=url).out
    assert "endpoint: acme/e\n" in cli.run("show", "e", "--namespace", "acme").out


def test_a_star_includes_organizations_and_names_those_that_hide_their_endpoints(cli: EndpointCli) -> None:
    for name in ("mine", "theirs", "hers"):
        cli.service.add(name)
    cli.service.organization("labs", "theirs")
    cli.service.organization("unpaid", refuses=True)
    cli.service.organization("more", "hers")
    ended = cli.run("list", "--namespace", "*", HF_ENDPOINT=cli.service.url)
    assert [line.split()[0] for line in ended.out.splitlines()[1:]] == ["acme/mine", "labs/theirs", "more/hers"]
    assert "unpaid has no billing, or does not show its endpoints to this token" in ended.err
    shown = cli.run("list", "--namespace", "*", "--json", HF_ENDPOINT=cli.service.url).json
    assert [one["name"] for one in shown["endpoints"]] == ["acme/mine", "labs/theirs", "more/hers"]
    assert {one["price_per_hour"] for one in shown["endpoints"]} == {0.033}
    assert (shown["namespace"], list(shown["refused"])) == ("*", ["unpaid"])


def test_a_star_fails_if_the_token_sees_nothing(cli: EndpointCli) -> None:
    cli.service.organization("unpaid", refuses=True)
    cli.service.trouble(Trouble("GET /v2/endpoint", status=403))
    ended = cli.run("list", "--namespace", "*", HF_ENDPOINT=cli.service.url)
    assert ended.code == 1
    assert "needs the scope inference.endpoints.write" in ended.line


def test_hardware_lists_available_instances_with_prices_and_quota(cli: EndpointCli) -> None:
    ended = cli.run("hardware", "--namespace", "acme")
    head, *lines, more = ended.out.splitlines()
    assert head.split()[:3] == ["vendor", "region", "accelerator"]
    first = ["aws", "us-east-1", "cpu", "intel-spr", "x1", "16", "GB", "-", "$0.033", "0/4", "available"]
    assert lines[0].split() == first
    assert [line.split()[3] for line in lines] == ["intel-spr", "nvidia-l4", "nvidia-t4"]
    assert more == "2 more are not available now: --all shows them"
    lines = cli.run("hardware", "--namespace", "acme", "--vendor", "GCP", "--all").out.splitlines()
    assert [line.split()[4] for line in lines[1:]] == ["x2", "x16"]


def test_hardware_as_json_has_the_values_that_create_takes(cli: EndpointCli) -> None:
    (found,) = cli.run("hardware", "--namespace", "acme", "--instance-type", "nvidia-l4", "--json").json["hardware"]
    options = [
        (f"--{key.replace('_', '-')}", found[key])
        for key in ("vendor", "region", "accelerator", "instance_type", "instance_size")
    ]
    assert tuple(part for option in options for part in option) == HARDWARE
    assert (found["price_per_hour"], found["gpu_memory_gb"], found["available"]) == (0.8, 24, True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            ("--vendor", "aws", "--instance-type", "nvidia-h900"),
            "--instance-type 'nvidia-h900' (there is intel-spr, nvidia-a100",
        ),
        (("--vendor", "gcp", "--accelerator", "cpu"), "no hardware has all of these values"),
    ],
)
def test_unavailable_hardware_is_reported_as_a_mistyped_option(
    cli: EndpointCli, options: tuple[str, ...], says: str
) -> None:
    ended = cli.run("hardware", "--namespace", "acme", *options)
    assert ended.code == 2
    assert says in ended.line


def test_show_prints_the_endpoint_its_holders_and_its_cost(cli: EndpointCli) -> None:
    cli.service.add("e", "running")
    cli.held("e")
    ended = cli.run("show", "acme/e")
    shown = dict(line.split(": ", 1) for line in ended.out.splitlines())
    assert shown["state"] == "running"
    assert shown["url"] == f"{cli.service.url}/data/acme/e"
    assert shown["hardware"] == "aws us-east-1 intel-spr x1"
    assert shown["price per hour"] == "$0.033"
    assert shown["replicas"] == "1 of 1 ready, 1 to 1"
    assert shown["held by"] == "run 5 of talk (process 77 on elsewhere)"
    assert shown["this month"].startswith("awake ")
    assert shown["pause owed"] == "no"  # its holder will pay


def test_show_as_json_has_the_receipts_of_this_month_and_no_secrets(cli: EndpointCli) -> None:
    cli.service.add("e", "paused", model={"secrets": {"KEY": SECRET}, "env": {"PLAIN": "1"}})
    cli.held("e", lease=0.0)
    cli.workplace.change("UPDATE awake_window SET resumed_at = opened_at - 1000")
    shown = cli.run("show", "acme/e", "--json").json
    assert shown["state"] == "paused"
    assert shown["replicas"] == {"ready": 0, "target": 0, "min": 1, "max": 1}
    assert shown["scale_to_zero_minutes"] is None
    assert shown["held_by"] == []
    assert shown["pause_owed"] is True
    assert 1.0 <= shown["this_month"]["dollars"] < 1.5
    assert shown["this_month"]["seconds"] >= 1000


@pytest.mark.parametrize("verb", ["show", "resume", "pause", "scale-to-zero", "delete", "logs", "metrics", "check"])
def test_a_missing_endpoint_is_reported(cli: EndpointCli, verb: str) -> None:
    ended = cli.run(verb, "acme/absent")
    assert ended.code == 1
    assert "there is no" in ended.out + ended.err
    assert "acme/absent" in ended.out + ended.err


def test_an_invalid_endpoint_name_is_refused(cli: EndpointCli) -> None:
    ended = cli.run("show", "Not A Name")
    assert ended.code == 2
    assert "'Not A Name' is not in the settings file" in ended.line
    assert cli.service.calls() == []


def test_an_endpoint_that_only_a_job_file_declares_is_refused_with_the_remedy(cli: EndpointCli) -> None:
    place = cli.workplace
    place.write_rows([{"id": "1", "text": "a"}])
    woken = place.folder / "woken"
    commands = f"resume=['touch', {str(woken)!r}], pause=['rm', '-f', {str(woken)!r}]"
    state = f"['sh', '-c', 'test -e {woken} && echo up || echo down']"
    endpoint = f"CommandEndpoint('mine', {place.url!r}, {commands}, state={state}, look_every=0.05)"
    job = place.job(prelude="from orchestrator.endpoints import CommandEndpoint", endpoint=endpoint)
    assert place.run("run", "--quiet", job).code == 0
    ended = cli.run("pause", "mine")
    assert ended.code == 2
    assert "endpoint mine is declared only in a job file: to manage it by name, add it to the settings" in ended.line
    assert "[endpoints.mine] with kind = 'command'" in ended.line
    assert cli.service.calls() == []


@pytest.mark.parametrize("verb", ["list", "show", "pause"])
def test_without_a_token_no_request_is_sent_and_with_a_wrong_one_nothing_is_shown(cli: EndpointCli, verb: str) -> None:
    cli.service.add("e", "running")
    arguments = ["--namespace", "acme"] if verb == "list" else ["acme/e"]
    ended = cli.run(verb, *arguments, HF_TOKEN="")
    assert ended.code == 2
    assert "there is no Hugging Face token: set the environment variable HF_TOKEN" in ended.line
    assert cli.service.calls() == []
    ended = cli.run(verb, *arguments, HF_TOKEN="hf_wrongToken")
    assert ended.code == 1
    assert "the environment variable HF_TOKEN holds no valid token" in ended.line
    assert "hf_wrongToken" not in ended.line
    assert cli.service.endpoint("e").states == ["running"]


def test_a_failure_is_also_one_json_object(cli: EndpointCli) -> None:
    ended = cli.run("show", "acme/absent", "--json")
    assert ended.json["exit_code"] == ended.code == 1
    assert "there is no endpoint acme/absent" in ended.json["error"]


# -- check -------------------------------------------------------------------------------------------------------------


def test_check_of_a_healthy_endpoint_sends_one_request_and_succeeds(cli: EndpointCli) -> None:
    cli.service.add("e", "running")
    ended = cli.run("check", "acme/e", "--input", "good morning")
    assert ended.code == 0
    assert [line.split()[:2] for line in ended.out.splitlines()] == [[step, "ok"] for step in STEPS]
    assert "plain http, loopback" in ended.out
    assert "the environment variable HF_TOKEN is accepted" in ended.out
    assert "GET /health was answered 200" in ended.out
    assert '"label"' in ended.out
    assert cli.service.endpoint("e").asked == {"good morning": 1}
    assert cli.windows() == []


def test_check_does_not_wake_a_sleeping_endpoint(cli: EndpointCli) -> None:
    for state in ("paused", "scaledToZero"):
        cli.service.add(state.lower(), state)
        ended = cli.run("check", f"acme/{state.lower()}", "--json")
        assert (ended.code, steps_of(ended)) == (1, up_to("state"))
        assert said_by(ended, "state") == f"{state}: it does not answer now; --wake wakes it for the check"
        assert cli.service.endpoint(state.lower()).states == [state]
    assert cli.service.calls("/data/") == []


def test_check_with_wake_puts_it_back_to_sleep(cli: EndpointCli) -> None:
    cli.service.add("e")
    cli.config('[endpoints.mine]\nkind = "huggingface"\nname = "acme/e"\npause = "never"\n')
    ended = cli.run("check", "mine", "--wake", "--json")
    assert (ended.code, steps_of(ended)) == (0, dict.fromkeys((*STEPS, "pause"), "ok"))
    assert "endpoint acme/e read as paused at " in said_by(ended, "pause")
    assert cli.service.endpoint("e").state == "paused"
    assert cli.service.endpoint("e").asked == {"hello": 1}
    assert [window[:3] for window in cli.windows()] == [("acme/e", "closed", "run")]


def test_check_with_wake_pauses_an_endpoint_that_does_not_come_up(cli: EndpointCli) -> None:
    cli.service.add("e", script=Script(fails="no kernel image for this GPU"))
    ended = cli.run("check", "acme/e", "--wake")
    assert ended.code == 1
    verdicts = [line.split() for line in ended.out.splitlines()]
    assert [verdict[0] for verdict in verdicts if verdict[1] == "failed"] == ["state"]
    assert "no kernel image for this GPU" in ended.out
    assert verdicts[-1][:2] == ["pause", "ok"]
    assert cli.service.endpoint("e").state == "paused"


def test_the_guard_of_a_check_is_replaced_when_it_is_killed(cli: EndpointCli) -> None:
    cli.service.add("e", script=Script(initializing=600))
    with cli.workplace.start("endpoints", "check", "acme/e", "--wake", env=cli.environment()) as running:
        cli.service.wait_for_state("e", "initializing")
        first = guard_of(running)
        first.kill()
        first.wait(20)
        until(lambda: [one.pid for one in guards_of(running)] not in ([], [first.pid]))
        running.kill()
        cli.service.wait_for_state("e", "paused")
        until(lambda: not cli.workplace.processes())


def test_check_with_wake_that_is_interrupted_leaves_nothing_running(cli: EndpointCli) -> None:
    cli.service.add("e", script=Script(initializing=600))
    with cli.workplace.start("endpoints", "check", "acme/e", "--wake", env=cli.environment()) as running:
        cli.service.wait_for_state("e", "initializing")
        running.send(signal.SIGINT)
        ended = running.end()
    assert ended.code == 130
    assert "Traceback" not in ended.err
    assert cli.service.endpoint("e").state == "paused"
    assert [window[1] for window in cli.windows()] == ["closed"]


@pytest.mark.parametrize(
    ("trouble", "step", "says"),
    [
        ("failed", "state", "CUDA out of memory"),
        ("starting", "state", "try again in a minute"),
        ("replica", "health", "GET /health was answered 503 (503 Service Unavailable)"),
        ("scope", "health", "it needs the scope inference.endpoints.infer.write"),
        ("input", "wire", "this input is hello"),
        ("wrong token", "token", "holds no valid token"),
        ("no token", "token", "there is no Hugging Face token"),
    ],
)
def test_check_of_a_broken_endpoint_names_the_step_that_fails(
    cli: EndpointCli, trouble: str, step: str, says: str
) -> None:
    service = cli.service
    service.add("e", "running")
    match trouble:
        case "failed":
            service.fail("e", "CUDA out of memory")
        case "starting":
            service.add("e", "initializing")
        case "replica":
            service.lose_replica("e", 600)
        case "scope":
            service.grant("hf_onlyManages", MANAGE)
            cli.env["HF_TOKEN"] = "hf_onlyManages"
        case "input":
            service.behave(statuses={"hello": 422})
        case "wrong token":
            service.grant("hf_onlyInfers", INFER)
            service.revoke()
        case _:
            cli.env["HF_TOKEN"] = ""
    ended = cli.run("check", "acme/e", "--json")
    assert (ended.code, steps_of(ended)) == (1, up_to(step))
    assert says in said_by(ended, step)


def test_check_tests_the_connection_to_a_separate_data_plane(cli: EndpointCli) -> None:
    cli.service.add("e", "running")
    elsewhere = cli.service.url.replace("127.0.0.1", "localhost")
    ended = cli.run("check", "acme/e", "--json", ORCHESTRATOR_HF_API_URL=f"{elsewhere}/v2")
    assert ended.code == 0
    assert "localhost is " in said_by(ended, "DNS")
    assert said_by(ended, "health") == "GET /health was answered 200 at 127.0.0.1, plain http, loopback"


# -- endpoints of other kinds ------------------------------------------------------------------------------------------


def test_an_external_server_supports_check_only(cli: EndpointCli, server: InferenceServer) -> None:
    unencrypted = server.url.replace("http:", "https:")
    cli.config(f"""
        [endpoints.theirs]
        kind = "http"
        url = "{server.url}"
        [endpoints.nowhere]
        kind = "http"
        url = "http://no-such-host.invalid/"
        [endpoints.closed]
        kind = "http"
        url = "http://127.0.0.1:9/"
        [endpoints.plain]
        kind = "http"
        url = "{unencrypted}"
        [endpoints.here]
        kind = "local"
        model = "org/model"
        task = "text-classification"
    """)
    ended = cli.run("check", "theirs", "--json")
    assert (ended.code, steps_of(ended)) == (0, dict.fromkeys(STEPS, "ok"))
    assert said_by(ended, "wire") == 'answered {"said":"olleh","pad":""}'
    assert said_by(ended, "token") == "none is sent"
    assert steps_of(cli.run("check", "nowhere", "--json")) == up_to("DNS")
    assert steps_of(cli.run("check", "closed", "--json")) == up_to("TLS")
    assert "no TLS with 127.0.0.1" in said_by(cli.run("check", "plain", "--json"), "TLS")
    assert "answers: yes\n" in cli.run("show", "theirs").out
    assert "needed no resuming: kept running by somebody else" in cli.run("resume", "theirs", "--wait").out
    assert "kept running by somebody else, and not ours to pause" in cli.run("pause", "theirs").out
    ended = cli.run("show", "here")
    assert (ended.code, "model on this machine" in ended.line) == (2, True)


def test_an_endpoint_of_the_users_own_commands_is_woken_and_paused(cli: EndpointCli, server: InferenceServer) -> None:
    awake = cli.workplace.folder / "awake"
    cli.config(f"""
        [endpoints.mine]
        kind = "command"
        url = "{server.url}"
        resume = ["touch", "{awake}"]
        state = ["sh", "-c", "test -e {awake} && echo up || echo down"]
        pause = ["rm", "-f", "{awake}"]
        price_per_hour = 2
        look_every = 0.05
    """)
    ended = cli.run("check", "mine")
    assert ended.code == 1
    assert "state    failed    down: it does not answer now" in ended.out
    assert not awake.exists()
    ended = cli.run("check", "mine", "--wake")
    assert ended.code == 0
    assert not awake.exists()
    assert "endpoint mine was resumed: up, and it answers" in cli.run("resume", "mine", "--wait").out
    assert awake.exists()
    shown = cli.run("show", "mine").out
    assert "state: awake\nmessage: up\n" in shown
    assert "price per hour: $2\n" in shown
    assert cli.run("pause", "mine").out.startswith("endpoint mine read as down at ")
    assert not awake.exists()


@pytest.mark.parametrize("verb", ["scale-to-zero", "delete", "logs", "metrics", "update", "create"])
def test_commands_for_hugging_face_only_are_refused_for_other_kinds(cli: EndpointCli, verb: str) -> None:
    cli.config('[endpoints.theirs]\nkind = "http"\nurl = "http://127.0.0.1:9/"\n')
    more = ["--repository", "org/m", *HARDWARE] if verb == "create" else []
    ended = cli.run(verb, "theirs", *more)
    assert ended.code == 2
    assert f"{verb} is for Hugging Face endpoints only" in ended.line


# -- resume, wait and pause --------------------------------------------------------------------------------------------


def test_resume_wakes_the_endpoint_arms_the_timer_and_waits_if_asked(cli: EndpointCli) -> None:
    cli.service.add("e")
    ended = cli.run("resume", "acme/e", "--wait")
    assert ended.code == 0
    assert ended.out.startswith("endpoint acme/e was resumed: ")
    assert "and it answers\n" in ended.out
    assert "orchestrator endpoints pause acme/e" in ended.out
    seen = cli.service.endpoint("e")
    assert (seen.state, seen.scaling["scaleToZeroTimeout"]) == ("running", 15)
    again = cli.run("resume", "acme/e", "--json").json
    assert (again["resumed"], again["answers"]) == (False, False)
    assert len(cli.service.calls("POST .*/resume")) == 1
    assert [window[:3] for window in cli.windows()] == [("acme/e", "open", None)]


def test_resume_reports_why_the_endpoint_does_not_come_up_and_which_pause_is_owed(cli: EndpointCli) -> None:
    cli.service.add("e", script=Script(fails="no kernel image for this GPU"))
    ended = cli.run("resume", "acme/e", "--wait")
    assert ended.code == 1
    assert "endpoint acme/e did not come up: failed: no kernel image for this GPU" in ended.err
    cli.service.add("other", "running")
    cli.held("other", lease=0.0)
    ended = cli.run("resume", "acme/other")
    assert ended.code == 0
    assert "needed no resuming" in ended.out
    assert "the next run or sweep will pause it" in ended.out


def test_resume_gives_up_after_the_startup_timeout(cli: EndpointCli) -> None:
    cli.service.add("e", script=Script(initializing=600))
    cli.config('[endpoints.slow]\nkind = "huggingface"\nname = "acme/e"\nstartup_timeout = 1.0\n')
    ended = cli.run("resume", "slow", "--wait")
    assert ended.code == 1
    assert "did not answer within 1 s" in ended.err
    assert "orchestrator endpoints pause acme/e" in ended.err


def test_wait_waits_for_an_endpoint_that_is_starting(cli: EndpointCli) -> None:
    cli.service.add("e", "pending")
    cli.service.trouble(Trouble("GET /v2/endpoint/acme/e", status=500, times=2))
    ended = cli.run("wait", "acme/e", "--timeout", "60", "--json")
    assert ended.json == {"endpoint": "acme/e", "state": "running, 1 of 1 replicas ready", "answers": True}
    assert cli.service.calls("POST ") == []


def test_wait_gives_up_after_its_timeout(cli: EndpointCli) -> None:
    cli.service.add("e", "pending", Script(initializing=float("inf")))
    ended = cli.run("wait", "acme/e", "--timeout", "0.5")
    assert ended.code == 1
    assert "did not answer within 0.5 s (initializing, 0 of 1 replicas ready); it may cost money" in ended.err


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ("paused", "is asleep (paused) and nothing wakes it: orchestrator endpoints resume acme/e --wait"),
        ("scaledToZero", "is asleep (scaledToZero) and nothing wakes it"),
        ("failed", "did not come up: failed"),
    ],
)
def test_wait_fails_at_once_if_the_endpoint_will_not_come_up_and_wakes_nothing(
    cli: EndpointCli, state: str, says: str
) -> None:
    cli.service.add("e", state)
    ended = cli.run("wait", "acme/e")
    assert ended.code == 1
    assert says in ended.err
    assert cli.service.endpoint("e").states == [state]


def test_pause_waits_until_the_pause_is_confirmed(cli: EndpointCli) -> None:
    cli.service.add("e", "running", script=Script(pause=0.5, pausing="pausing"))
    ended = cli.run("pause", "acme/e")
    assert ended.code == 0
    assert ended.out.startswith("endpoint acme/e read as paused at ")
    assert cli.service.endpoint("e").states == ["running", "pausing", "paused"]
    cli.service.add("other", "running", script=Script(pause=600))
    found = cli.run("pause", "acme/other", "--no-wait", "--json").json
    assert (found["endpoint"], found["asked"], found["confirmed"]) == ("acme/other", True, False)
    assert cli.run("pause", "acme/other", "--no-wait").out.startswith("endpoint acme/other was asked to pause, and")


def test_pause_also_pauses_an_endpoint_that_has_scaled_to_zero(cli: EndpointCli) -> None:
    cli.service.add("e", "scaledToZero")
    assert cli.run("pause", "acme/e", "--json").json["state"] == "paused"
    assert cli.service.endpoint("e").state == "paused"


@pytest.mark.parametrize("verb", ["pause", "scale-to-zero"])
def test_an_endpoint_in_use_is_paused_only_with_force(cli: EndpointCli, verb: str) -> None:
    cli.service.add("e", "running")
    cli.held("e")
    ended = cli.run(verb, "acme/e")
    assert ended.code == 2
    assert "endpoint acme/e is used by run 5 of talk (process 77 on elsewhere); stop that first" in ended.line
    assert cli.service.endpoint("e").states == ["running"]
    assert cli.run(verb, "acme/e", "--force").code == 0
    assert cli.service.endpoint("e").state in {"paused", "scaledToZero"}
    assert [window[1] for window in cli.windows()] == ["open"]  # the run's own, which notices the pause by itself


def test_pause_pays_the_debt_of_a_dead_run(cli: EndpointCli) -> None:
    cli.service.add("e", "running")
    cli.held("e", lease=0.0)
    assert cli.run("pause", "acme/e").code == 0
    assert cli.windows() == [("acme/e", "closed", "pause", "paused")]
    assert cli.workplace.count("hold", "until IS NULL") == 0


def test_a_debt_stays_owed_if_the_pause_fails(cli: EndpointCli) -> None:
    cli.service.add("e", "running")
    cli.held("e", lease=0.0)
    cli.service.trouble(Trouble("POST .*scale-to-zero", status=403))
    assert cli.run("scale-to-zero", "acme/e").code == 1
    assert [window[:2] for window in cli.windows()] == [("acme/e", "closing")]
    ended = cli.workplace.run("sweep", env=cli.environment())
    assert "endpoint acme/e read as paused" in ended.err
    assert cli.service.endpoint("e").state == "paused"


def test_scale_to_zero_is_recognized_and_a_paused_endpoint_stays_paused(cli: EndpointCli) -> None:
    cli.service.add("e", "running")
    assert cli.run("scale-to-zero", "acme/e").out.startswith("endpoint acme/e read as scaledToZero at ")
    cli.service.add("p")
    ended = cli.run("scale-to-zero", "acme/p")
    assert ended.code == 1
    assert "cannot scale an endpoint to zero that is paused" in ended.line
    assert cli.service.endpoint("p").state == "paused"


# -- create, update and delete -----------------------------------------------------------------------------------------


def test_create_makes_a_private_endpoint_with_a_timer(cli: EndpointCli) -> None:
    options = [
        *("--repository", "org/m", "--revision", "abc", "--task", "feature-extraction", *HARDWARE),
        *("--max-replica", "2", "--scaling-metric", "pendingRequests", "--scaling-threshold", "3"),
        *("--image", 'TEI={"url": "ghcr.io/tei:1", "maxBatchTokens": 16384}', "--env", "A=x=y", "--env", "B="),
        *("--secret", "KEY=MY_KEY", "--arg", "--verbose", "--tag", "nightly"),
    ]
    ended = cli.run("create", "acme/new", *options, "--wait", MY_KEY=SECRET)
    assert ended.code == 0, ended.err
    assert f"endpoint acme/new is created: running, at {cli.service.url}/data/acme/new\n" in ended.out
    assert "it costs $0.8 an hour while a replica is awake, and sleeps after 15 idle minutes\n" in ended.out
    held = cli.workplace.query("SELECT h.job, w.price_per_hour FROM hold h JOIN awake_window w ON w.id = h.window_id")
    assert held == [("(create)", 0.8)]
    spec = cli.spec("new")
    assert (spec["type"], spec["tags"]) == ("private", ["nightly"])
    assert spec["compute"] == {
        "accelerator": "gpu",
        "instanceType": "nvidia-l4",
        "instanceSize": "x1",
        "scaling": {"minReplica": 0, "maxReplica": 2, "scaleToZeroTimeout": 15, "measure": {"pendingRequests": 3}},
    }
    assert spec["model"] == {
        "repository": "org/m",
        "revision": "abc",
        "task": "feature-extraction",
        "framework": "pytorch",
        "image": {"tei": {"url": "ghcr.io/tei:1", "maxBatchTokens": 16384}},
        "env": {"A": "x=y", "B": ""},
        "secrets": {"KEY": SECRET},
        "args": ["--verbose"],
        "command": None,
    }
    ended = cli.run("create", "acme/new", "--repository", "org/m", *HARDWARE, "--json")
    assert ended.code == 1
    assert "endpoint new already exists" in ended.json["error"]
    assert len(cli.windows()) == 1


def test_a_model_of_the_catalog_is_deployed_as_private_and_as_short_lived_as_a_created_one(cli: EndpointCli) -> None:
    shown = cli.run("catalog", "--task", "text-generation").out.splitlines()
    assert shown[1].split() == [
        "org/chat",
        "text-generation",
        "Apache",
        "2.0",
        "sizzling-biryani-1",
        "gpu",
        "vllm",
        "-",
    ]
    assert shown[2].split() == ["artisanal-quinoa-2", "cpu", "llamacpp", "q4.gguf"]
    (model,) = cli.run("catalog", "--search", "vectors", "--json").json["models"]
    ended = cli.run("deploy", "acme/new", "--recipe", model["recipes"][0]["id"], "--wait")
    assert ended.code == 0, ended.err
    assert f"endpoint acme/new is created: running, at {cli.service.url}/data/acme/new\n" in ended.out
    assert "it costs $0.8 an hour while a replica is awake, and sleeps after 15 idle minutes\n" in ended.out
    held = cli.workplace.query("SELECT h.job, w.price_per_hour FROM hold h JOIN awake_window w ON w.id = h.window_id")
    assert held == [("(deploy)", 0.8)]
    spec = cli.spec("new")
    assert (spec["type"], spec["model"]["repository"]) == ("private", "org/vectors")
    scaling = spec["compute"]["scaling"]
    assert (scaling["minReplica"], scaling["maxReplica"], scaling["scaleToZeroTimeout"]) == (0, 2, 15)
    again = cli.run("deploy", "acme/new", "--repository", "org/chat")
    assert (again.code, "endpoint new already exists" in again.line) == (1, True)


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        ((), 2, "deploy either a repository or a recipe"),
        (("--repository", "chat"), 2, "a repository is ORG/MODEL, not 'chat'"),
        (("--recipe", "a/b"), 2, "'a/b' is not the id of a recipe"),
        (("--recipe", "a", "--accelerator", "gpu"), 2, "a recipe has its own accelerator"),
        (("--repository", "org/chat", "--scale-to-zero-timeout", "5"), 2, "--scale-to-zero-timeout must be 15 to 2880"),
        (("--repository", "org/none"), 1, "the catalog has no org/none that can be deployed so"),
    ],
)
def test_what_the_catalog_cannot_deploy_is_refused_and_leaves_nothing(
    cli: EndpointCli, options: tuple[str, ...], code: int, says: str
) -> None:
    ended = cli.run("deploy", "acme/new", *options)
    assert (ended.code, says in ended.line) == (code, True), ended.line
    assert len(cli.service.calls("/catalog/")) == code % 2
    assert cli.workplace.query("SELECT * FROM hold") == []


@dataclass(frozen=True)
class Wrong:
    """Invalid options for an endpoint."""

    options: tuple[str, ...]
    says: str
    env: Mapping[str, str] = field(default_factory=dict)


WRONG = {
    "a timer too short": Wrong(("--scale-to-zero-timeout", "5"), "15 to 2880 minutes"),
    "more at least than at most": Wrong(("--min-replica", "2"), "replicas cannot range from 2 to 1"),
    "a type that no longer exists": Wrong(
        ("--type", "protected"), "--type 'protected' was replaced by 'authenticated'"
    ),
    "an unknown type": Wrong(("--type", "secret"), "--type must be one of private, authenticated, public"),
    "a metric alone": Wrong(("--scaling-metric", "hardwareUsage"), "go together"),
    "an unknown image": Wrong(("--image", "ollama=x"), "the kind must be one of huggingface, vLLM, sGLang"),
    "an image that is not JSON": Wrong(("--image", "tgi={url}"), "settings are not JSON"),
    "a variable without a value": Wrong(("--env", SECRET), "--env must be KEY=VALUE"),
    "a secret with a value": Wrong(("--secret", f"KEY={SECRET}"), "its value is read from the environment"),
    "a secret that is not set": Wrong(("--secret", "KEY"), "set the environment variable KEY"),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_invalid_options_of_create_are_refused_before_any_request(cli: EndpointCli, wrong: Wrong) -> None:
    ended = cli.run("create", "acme/new", "--repository", "org/m", *HARDWARE, *wrong.options)
    assert ended.code == 2
    assert wrong.says in ended.line
    assert cli.service.calls() == []


def test_a_secret_that_the_api_repeats_is_not_shown(cli: EndpointCli) -> None:
    cli.service.add("e")
    repeated = b'{"error":"Bad Request: not a valid secret: %s"}' % SECRET.encode()
    cli.service.trouble(Trouble("(POST|PUT) ", status=400, body=repeated))
    for verb, more in (("create", ["--repository", "org/m", *HARDWARE]), ("update", [])):
        ended = cli.run(verb, "acme/e", *more, "--secret", "KEY", KEY=SECRET)
        assert ended.code == 1
        assert "not a valid secret: ***" in ended.line


def test_update_changes_only_the_named_settings(cli: EndpointCli) -> None:
    cli.service.add("e", "running", model={"env": {"OLD": "1"}})
    before = cli.spec("e")
    ended = cli.run("update", "acme/e", "--max-replica", "3", "--scale-to-zero-timeout", "30", "--env", "N=2", "--wait")
    assert ended.code == 0, ended.err
    assert "endpoint acme/e is updated: running" in ended.out
    assert "sleeps after 30 idle minutes" in ended.out
    after = cli.spec("e")
    scaling = before["compute"]["scaling"] | {"maxReplica": 3, "scaleToZeroTimeout": 30}
    assert after["compute"] == before["compute"] | {"scaling": scaling}
    assert after["model"] == before["model"] | {"env": {"N": "2"}}
    cli.run("update", "acme/e", "--scale-to-zero-timeout", "0", "--image", "llama.cpp=ghcr.io/x:1", "--type", "public")
    after = cli.spec("e")
    assert (after["compute"]["scaling"]["scaleToZeroTimeout"], after["type"]) == (None, "public")
    assert after["model"]["image"] == {"llamacpp": {"url": "ghcr.io/x:1"}}


def test_routes_credentials_private_link_and_caching_can_be_set(cli: EndpointCli) -> None:
    options = [
        *("--image", "custom=ghcr.io/acme/x:1", "--registry-username", "ann", "--registry-password-env", "MY_KEY"),
        *("--private-link-account", "123", "--private-link-region", "eu-west-1", "--domain", "m.acme.example"),
        *("--path", "/m", "--cache-http-responses", "yes"),
    ]
    ended = cli.run("create", "acme/new", "--repository", "org/m", *HARDWARE, *options, MY_KEY=SECRET)
    assert (ended.code, SECRET in ended.out + ended.err) == (0, False)
    spec = cli.spec("new")
    assert spec["model"]["image"]["custom"]["credentials"] == {"username": "ann", "password": SECRET}
    assert spec["privateService"] == {"accountId": "123", "region": "eu-west-1"}
    assert (spec["route"], spec["cacheHttpResponses"]) == ({"domain": "m.acme.example", "path": "/m"}, True)
    assert cli.run("update", "acme/new", "--path", "/n", "--cache-http-responses", "no").code == 0
    spec = cli.spec("new")
    assert (spec["route"], spec["cacheHttpResponses"]) == ({"domain": "m.acme.example", "path": "/n"}, False)
    assert "--path must begin with /" in cli.run("update", "acme/new", "--path", "n").line


def test_sizes_of_parallelism_change_only_these_settings_of_the_image(cli: EndpointCli) -> None:
    cli.service.add("e", model={"image": {"vLLM": {"url": "vllm/vllm-openai:1", "maxNumSeqs": 8}}})
    assert cli.run("update", "acme/e", "--tensor-parallel-size", "4").code == 0
    image = {"vLLM": {"url": "vllm/vllm-openai:1", "maxNumSeqs": 8, "tensorParallelSize": 4}}
    assert cli.spec("e")["model"]["image"] == image
    cli.service.add("t", model={"image": {"tei": {"url": "u"}}})
    ended = cli.run("update", "acme/t", "--tensor-parallel-size", "4")
    assert (ended.code, "is a setting of the images vLLM and sGLang, not of 'tei'" in ended.line) == (2, True)


def test_update_names_the_successor_of_a_retired_instance_type(cli: EndpointCli) -> None:
    ended = cli.run("update", "acme/e", "--type", "protected")
    assert ended.code == 2
    assert "'protected' was replaced by 'authenticated'" in ended.line
    assert cli.service.calls() == []


def test_update_needs_at_least_one_change(cli: EndpointCli) -> None:
    cli.service.add("e")
    ended = cli.run("update", "acme/e")
    assert (ended.code, "there is nothing to change" in ended.line) == (2, True)
    ended = cli.run("update", "acme/e", "--scaling-metric", "hardwareUsage")
    assert (ended.code, "must be given together" in ended.line) == (2, True)
    ended = cli.run("update", "acme/absent", "--task", "text-classification")
    assert (ended.code, "there is no endpoint acme/absent" in ended.line) == (1, True)
    assert cli.service.calls("PUT") == []


def test_delete_asks_for_the_typed_name(cli: EndpointCli) -> None:
    cli.service.add("e", "running")
    ended = cli.run("delete", "acme/e")  # no server listens there
    assert ended.code == 2
    assert "acme/e (org/model on aws us-east-1 intel-spr x1, running) will be deleted for good" in ended.err
    assert cli.type("yes\n", "delete", "acme/e").returncode == 2
    assert cli.run("delete", "acme/e", "--yes-delete", "other").code == 2
    assert cli.run("delete", "acme/e", "--yes-delete", "").code == 2
    assert cli.service.calls("DELETE") == []
    typed = cli.type("e\n", "delete", "acme/e")
    assert (typed.returncode, typed.stdout) == (0, "endpoint acme/e is deleted\n")
    assert cli.service.endpoint("e").state == "deleted"


def test_delete_refuses_while_the_endpoint_is_in_use_and_settles_debts_of_dead_processes(cli: EndpointCli) -> None:
    for name in ("used", "owed"):
        cli.service.add(name, "running")
    cli.held("used")
    ended = cli.run("delete", "acme/used", "--yes-delete", "used")
    assert ended.code == 2
    assert "endpoint acme/used is used by run 5 of talk" in ended.line
    assert cli.service.calls("DELETE") == []
    cli.held("owed", lease=0.0)
    found = cli.run("delete", "acme/owed", "--yes-delete", "acme/owed", "--json").json
    assert found == {"endpoint": "acme/owed", "deleted": True}
    assert cli.windows()[1] == ("acme/owed", "closed", "delete", "deleted")


# -- logs and metrics --------------------------------------------------------------------------------------------------


def test_logs_can_be_printed_or_followed_and_the_reader_may_leave(cli: EndpointCli) -> None:
    cli.service.add("e", "running")
    for word in ("one", "two", "three"):
        cli.service.log("e", word)
    assert [line.split()[-1] for line in cli.run("logs", "acme/e", "--tail", "2").out.splitlines()] == [
        "two",
        "three",
    ]
    assert cli.run("logs", "acme/e", "--replica", "7").out == ""
    with cli.workplace.start("endpoints", "logs", "acme/e", "-f", "--tail", "1", env=cli.environment()) as running:
        stdout = running.process.stdout
        assert stdout is not None
        assert stdout.readline().endswith(" three\n")
        cli.service.log("e", "four")
        assert stdout.readline().endswith(" four\n")
        stdout.close()
        cli.service.log("e", "nobody reads this")
        until(lambda: running.process.poll() is not None)
        assert running.process.returncode == 0


def test_ctrl_c_ends_following_logs(cli: EndpointCli) -> None:
    cli.service.add("e", "running")
    cli.service.log("e", "one")
    with cli.workplace.start("endpoints", "logs", "acme/e", "-f", "--tail", "1", env=cli.environment()) as running:
        stdout = running.process.stdout
        assert stdout is not None
        assert stdout.readline().endswith(" one\n")
        running.send(signal.SIGINT)
        ended = running.end()
    assert ended.code == 130
    assert "Traceback" not in ended.err


def test_metrics_prints_the_text_of_the_service(cli: EndpointCli) -> None:
    cli.service.add("e", "running")
    cli.run("check", "acme/e")
    ended = cli.run("metrics", "acme/e")
    assert ended.out.startswith("# TYPE latency_distribution summary\n")
    assert 'http_requests{replica_id="0",status_code="200"} 2\n' in ended.out
    assert ended.out.endswith("# EOF\n")


async def test_holders_are_live_processes_with_their_runs(store: Store) -> None:
    terms = Terms("acme/e", {})
    one = await store.runs.register(host="a", pid=1, pid_started=0.0, lease=60)
    two = await store.runs.register(host="b", pid=2, pid_started=0.0, lease=60)
    window = await store.windows.enter(terms, one, 3, "talk")
    assert await store.windows.enter(terms, two) == window
    assert [(h.pid, h.run_id, h.job) for h in await store.windows.holders("acme/e")] == [
        (1, 3, "talk"),
        (2, None, None),
    ]
    assert window is not None
    await store.windows.leave(window, one, Spent())
    assert [holder.process_id for holder in await store.windows.holders("acme/e")] == [two]
    (dead,) = [process for process in await store.runs.living() if process.id == two]
    await store.runs.bury(dead)
    assert await store.windows.holders("acme/e") == []
    assert await store.windows.holders("acme/other") == []
