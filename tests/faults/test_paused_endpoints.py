"""However a run ends, the endpoint that it woke is paused, and the ledger says so: real processes, a real service."""

from __future__ import annotations

import math
import os
import signal
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from orchestrator.engine.fanout import CANARY
from tests.commands import rows, until
from tests.hf_rules import answer_to
from tests.hf_service import HTML, INFER, JSON_STRING, MANAGE, HfService, Trouble, hf_service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.commands import Running, Workplace
    from tests.servers import InferenceServer

ITEMS = 40
CONCURRENCY = 8
ANSWERED = 12  # before the model holds everything back
PRELUDE = "from orchestrator.endpoints import HuggingFaceEndpoint"


@pytest.fixture
def service() -> Iterator[HfService]:
    with hf_service(namespace="acme") as running:
        running.add("batch")
        yield running


class Scene:
    """A workplace with a job on the endpoint acme/batch."""

    def __init__(self, workplace: Workplace, service: HfService) -> None:
        self.workplace = workplace
        self.service = service
        self.env = {"ORCHESTRATOR_HF_API_URL": f"{service.url}/v2", "HF_TOKEN": service.token}
        workplace.write_rows(rows(range(ITEMS)))

    def job(self, file: str = "job.py", *, options: str = "", **code: str) -> Path:
        code.setdefault("policy", f"concurrency={CONCURRENCY}, backoff=Backoff(first=0.01), grace=10")
        code["prelude"] = f"{PRELUDE}\n{code.get('prelude', '')}"
        return self.workplace.job(file, endpoint=f"HuggingFaceEndpoint('acme/batch', {options})", **code)

    def run(self, *arguments: str | Path, code: int = 0) -> str:
        """Run a command to its end; gives what it said."""
        ended = self.workplace.run(*arguments, env=self.env)
        assert (ended.code, "Traceback" in ended.err) == (code, False), ended.err
        return ended.err

    def start(self, job: Path) -> Any:  # noqa: ANN401 - the workplace's context manager
        return self.workplace.start("run", job, env=self.env)

    @property
    def windows(self) -> list[tuple[Any, ...]]:
        return self.workplace.query("SELECT state, owed, closed_by FROM awake_window ORDER BY id")

    @property
    def left_paused(self) -> bool:
        """The endpoint sleeps, and nobody owes anything."""
        settled = all(state == "closed" for state, _, _ in self.windows)
        return settled and self.service.endpoint("batch").state in {"paused", "scaledToZero"}

    def held_back(self) -> None:
        """Wait until all places are taken by requests that the model holds back, and the others are committed."""
        until(lambda: self.service.endpoint("batch").in_flight == CONCURRENCY)
        until(lambda: self.workplace.count("result") == ANSWERED)

    def finishes(self, job: Path) -> None:
        self.service.behave()
        self.run("run", job)
        found = [row["output"] for row in self.workplace.outputs()]
        assert found == [[answer_to(str(row["text"]))] for row in rows(range(ITEMS))]
        assert self.left_paused


@pytest.fixture
def scene(workplace: Workplace, service: HfService) -> Scene:
    return Scene(workplace, service)


# -- how a run may end ------------------------------------------------------------------------------------------------


def test_a_run_wakes_works_pauses_and_proves_it(scene: Scene) -> None:
    job = scene.job(options="price_per_hour=3.6")
    ended = scene.workplace.run("run", "--json", job, env=scene.env)
    assert ended.code == 0, ended.err
    stay = ended.json["awake"]
    assert stay["proof"].startswith("endpoint acme/batch read as paused at 20")
    assert stay["proof"] in ended.err
    assert stay["cost"] == pytest.approx(stay["seconds"]["all"] / 1000, abs=1e-5)
    assert scene.windows == [("closed", 1, "run")]
    seen = scene.service.endpoint("batch")
    assert seen.state == "paused"
    assert (seen.scaling["minReplica"], seen.scaling["scaleToZeroTimeout"]) == (0, 15)  # the last switch was armed
    assert seen.asked == {str(row["text"]): 1 for row in rows(range(ITEMS))}
    costs = scene.workplace.run("costs", "--by", "endpoint", "--json").json["costs"]
    assert [(cost["what"], cost["seconds"] > 0) for cost in costs] == [("acme/batch", True)]
    calls = [call for call in scene.service.calls(" /v2/") if call.method != "GET"]
    assert [str(call).rpartition("/")[2] for call in calls] == ["resume", "batch", "pause"]
    assert scene.workplace.run("run", job, env=scene.env).code == 0  # nothing to do wakes nobody
    assert len([call for call in scene.service.calls(" /v2/") if call.method != "GET"]) == 3


def test_a_parse_that_always_raises_stops_the_run_and_pauses(scene: Scene) -> None:
    job = scene.job(prelude="def parse(answer):\n    return answer['no such thing']\n", parse="parse")
    assert "in a row failed for the same cause" in scene.run("run", job, code=1)
    assert scene.left_paused


def test_a_bug_in_the_job_is_no_reason_to_leave_it_on(scene: Scene) -> None:
    job = scene.job(prelude="def parse(answer):\n    raise SystemExit(7)\n", parse="parse")
    scene.workplace.run("run", job, env=scene.env)
    assert scene.left_paused


@pytest.mark.parametrize(
    ("script", "options", "code", "says"),
    [
        ({"fails": "CUDA out of memory"}, "", 1, "CUDA out of memory"),
        ({"pending": math.inf}, "startup_timeout=1", 4, "was not awake within 1 s"),
        ({"initializing": math.inf}, "startup_timeout=1", 4, "was not awake within 1 s"),
    ],
)
def test_an_endpoint_that_does_not_start_is_paused(
    scene: Scene, script: dict[str, Any], options: str, code: int, says: str
) -> None:
    scene.service.script("batch", **script)
    assert says in scene.run("run", scene.job(options=options), code=code)
    assert scene.left_paused


def test_one_that_is_cancelled_while_starting_is_paused(scene: Scene) -> None:
    scene.service.script("batch", initializing=math.inf)
    with scene.start(scene.job()) as running:
        scene.service.wait_for_state("batch", "initializing")
        running.send(signal.SIGINT)
        assert running.end().code == 130
    assert scene.left_paused


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_signals_end_in_a_paused_endpoint(scene: Scene, number: signal.Signals, times: int) -> None:
    scene.service.behave(hold_after=ANSWERED)
    job = scene.job()
    with scene.start(job) as running:
        scene.held_back()
        for _ in range(times):
            running.send(number)
        if times == 1:
            scene.service.behave()
        assert running.end().code == 130
    assert scene.left_paused
    scene.finishes(job)


def guard_of(running: Running) -> psutil.Process:
    (guard,) = [one for one in psutil.Process(running.pid).children() if any("watch.py" in w for w in one.cmdline())]
    return guard


def test_after_kill_9_the_guard_pauses(scene: Scene) -> None:
    scene.service.behave(hold_after=ANSWERED)
    job = scene.job()
    with scene.start(job) as running:
        scene.held_back()
        os.kill(running.pid, signal.SIGKILL)
        scene.service.wait_for_state("batch", "paused")
        until(lambda: scene.left_paused)
    assert scene.windows == [("closed", 1, "sweep")]
    until(lambda: not scene.workplace.processes())
    scene.finishes(job)


def test_after_kill_9_while_starting_the_guard_pauses(scene: Scene) -> None:
    scene.service.script("batch", initializing=math.inf)
    with scene.start(scene.job()) as running:
        scene.service.wait_for_state("batch", "initializing")
        os.kill(running.pid, signal.SIGKILL)
        until(lambda: scene.left_paused)
    until(lambda: not scene.workplace.processes())


def test_after_kill_9_of_orchestrator_and_guard_the_sweep_pauses_and_touches_nothing_else(scene: Scene) -> None:
    scene.service.add("theirs", state="running")
    scene.service.behave(hold_after=ANSWERED)
    with scene.start(scene.job()) as running:
        scene.held_back()
        for pid in (guard_of(running).pid, running.pid):
            os.kill(pid, signal.SIGKILL)
    assert scene.service.endpoint("batch").state == "running"
    assert "endpoint acme/batch is owed a pause" in scene.run("sweep", "--dry-run")
    assert scene.service.endpoint("batch").state == "running"
    assert "endpoint acme/batch read as paused at" in scene.run("sweep")
    assert scene.left_paused
    assert "nothing is owed" in scene.run("sweep")
    assert scene.service.endpoint("theirs").state == "running"
    assert not scene.service.calls("theirs")


def test_a_debt_is_paid_by_the_next_run_whatever_it_is_about(scene: Scene) -> None:
    scene.service.behave(hold_after=ANSWERED)
    with scene.start(scene.job()) as running:
        scene.held_back()
        for pid in (guard_of(running).pid, running.pid):
            os.kill(pid, signal.SIGKILL)
    scene.workplace.write_rows([])
    other = scene.workplace.job("other.py", name="'other'")
    assert "swept: endpoint acme/batch read as paused" in scene.run("run", other)
    assert scene.left_paused


def test_an_endpoint_left_on_is_adopted_by_the_job_that_goes_on(scene: Scene) -> None:
    scene.service.behave(hold_after=ANSWERED)
    job = scene.job()
    with scene.start(job) as running:
        scene.held_back()
        for pid in (guard_of(running).pid, running.pid):
            os.kill(pid, signal.SIGKILL)
    scene.finishes(job)
    assert len(scene.service.calls("POST /v2/.*/resume")) == 1  # it was awake: nothing was paid for twice
    assert scene.windows == [("closed", 1, "run")]


# -- sharing and respecting -------------------------------------------------------------------------------------------


def test_two_processes_share_one_waking_and_the_last_one_pauses(scene: Scene) -> None:
    scene.service.behave(hold_after=ANSWERED)
    second_rows = scene.workplace.folder / "second.jsonl"
    first = scene.job()
    second = scene.job(
        "second.py",
        name="'second'",
        source=f"JsonlSource({str(scene.workplace.rows)!r}, id='id')",
        sink=f"JsonlSink({str(second_rows)!r})",
    )
    with scene.start(first) as one, scene.start(second) as two:
        until(lambda: scene.workplace.count("hold", "until IS NULL") == 2)
        until(lambda: scene.service.endpoint("batch").in_flight >= CONCURRENCY + CANARY)
        scene.service.behave()
        said = [running.end() for running in (one, two)]
    assert [ended.code for ended in said] == [0, 0], said
    assert scene.left_paused
    assert len(scene.service.calls("POST /v2/.*/resume")) == 1
    assert len(scene.service.calls("POST /v2/.*/pause")) == 1
    assert scene.workplace.count("awake_window") == 1


def test_when_the_one_that_resumed_is_killed_the_other_one_goes_on_and_pauses(scene: Scene) -> None:
    scene.service.behave(hold_after=ANSWERED)
    sink = f"JsonlSink({str(scene.workplace.folder / 'second.jsonl')!r})"
    with scene.start(scene.job()) as one:
        until(lambda: scene.service.endpoint("batch").in_flight == CONCURRENCY)
        with scene.start(scene.job("second.py", name="'second'", sink=sink)) as two:
            until(lambda: scene.service.endpoint("batch").in_flight >= CONCURRENCY + CANARY)
            guard = guard_of(one)
            os.kill(one.pid, signal.SIGKILL)
            one.end()
            until(lambda: not guard.is_running())  # it has looked, and there was nothing to pay
            assert scene.service.endpoint("batch").state == "running"
            scene.service.behave()
            assert two.end().code == 0
    assert scene.left_paused
    assert scene.windows == [("closed", 1, "run")]


def test_an_endpoint_kept_awake_is_used_by_the_next_run_and_paused_after_it(scene: Scene) -> None:
    scene.service.behave()
    sink = f"JsonlSink({str(scene.workplace.folder / 'second.jsonl')!r})"
    with scene.start(scene.job(options="linger=300")) as one:
        until(scene.workplace.output.exists)
        assert scene.service.endpoint("batch").state == "running"
        scene.run("run", scene.job("second.py", name="'second'", sink=sink))
        assert scene.service.endpoint("batch").state == "running"
        one.send(signal.SIGINT)
        one.end()
    assert scene.left_paused
    assert len(scene.service.calls("POST /v2/.*/resume")) == 1


def test_a_spent_budget_ends_in_a_paused_endpoint(scene: Scene) -> None:
    scene.service.behave(hold_after=ANSWERED)
    job = scene.job(policy=f"concurrency={CONCURRENCY}, max_cost=0.003, grace=0", options="price_per_hour=3.6")
    said = scene.run("run", job, code=4)
    assert "the budget is spent" in said
    assert f"{ITEMS - ANSWERED} items left" in said
    assert scene.left_paused


# -- endpoints for one run --------------------------------------------------------------------------------------------

SPEC = (
    "lifecycle='ephemeral', create=EndpointSpec(repository='org/m', framework='pytorch', vendor='aws', "
    "region='us-east-1', accelerator='gpu', instance_type='nvidia-l4', instance_size='x1', task='text-classification')"
)


@pytest.mark.parametrize("killed", [False, True])
def test_an_ephemeral_endpoint_is_made_for_the_run_and_deleted_however_that_ends(scene: Scene, *, killed: bool) -> None:
    if killed:
        scene.service.behave(hold_after=ANSWERED)
    job = scene.workplace.job(
        prelude=f"{PRELUDE}, EndpointSpec",
        endpoint=f"HuggingFaceEndpoint('acme/for-once', {SPEC})",
        policy=f"concurrency={CONCURRENCY}",
    )
    with scene.start(job) as running:
        if killed:
            until(lambda: scene.workplace.count("result") == ANSWERED)
            os.kill(running.pid, signal.SIGKILL)
        assert running.end().code == (-signal.SIGKILL if killed else 0)
    until(lambda: scene.service.calls("DELETE /v2/.*/for-once"))
    until(lambda: scene.windows == [("closed", 1, "sweep" if killed else "run")])
    until(lambda: not scene.workplace.processes())
    assert scene.service.calls("DELETE /v2/.*/for-once")[-1].status == 200
    assert not scene.service.calls("(POST|PUT|DELETE) /v2/.*/batch")


def test_what_ran_before_goes_on_running(scene: Scene) -> None:
    scene.service.add("theirs", state="running")
    job = scene.workplace.job(prelude=PRELUDE, endpoint="HuggingFaceEndpoint('acme/theirs')")
    assert "was left as it was found: running" in scene.run("run", job)
    assert scene.service.endpoint("theirs").state == "running"
    assert not [call for call in scene.service.calls("/v2/.*theirs") if call.method != "GET"]


def test_what_was_scaled_to_zero_is_again(scene: Scene) -> None:
    scene.service.add("dozing", state="scaledToZero")
    job = scene.workplace.job(prelude=PRELUDE, endpoint="HuggingFaceEndpoint('acme/dozing')")
    assert "read as scaledToZero" in scene.run("run", job)
    assert scene.service.endpoint("dozing").state == "scaledToZero"


# -- trouble in mid-work ----------------------------------------------------------------------------------------------


def in_mid_work(scene: Scene, job: Path, happens: Callable[[], object]) -> tuple[int, str]:
    """Let something happen while requests are in flight; gives exit code and words."""
    scene.service.behave(hold_after=ANSWERED)
    with scene.start(job) as running:
        scene.held_back()
        happens()
        scene.service.behave()
        ended = running.end()
    assert "Traceback" not in ended.err
    return ended.code, ended.err


def test_somebody_elses_pause_stops_the_run(scene: Scene) -> None:
    job = scene.job()
    code, said = in_mid_work(scene, job, lambda: scene.service.pause_from_outside("batch"))
    assert (code, "somebody paused endpoint acme/batch" in said) == (4, True)
    assert scene.left_paused
    scene.finishes(job)


def test_somebody_elses_pause_is_undone_where_the_policy_says_so(scene: Scene) -> None:
    job = scene.job(policy=f"concurrency={CONCURRENCY}, on_foreign_pause='resume'")
    code, said = in_mid_work(scene, job, lambda: scene.service.pause_from_outside("batch"))
    assert code == 0, said
    assert scene.left_paused
    assert scene.workplace.count("attempt") == 0  # lifecycle trouble costs no attempt


def test_a_failing_endpoint_fails_the_run_with_the_providers_words(scene: Scene) -> None:
    code, said = in_mid_work(scene, scene.job(), lambda: scene.service.fail("batch", "Xid 79: GPU fell off the bus"))
    assert (code, "GPU fell off the bus" in said) == (1, True)
    assert scene.left_paused


def test_a_deleted_endpoint_fails_the_run_and_owes_nothing(scene: Scene) -> None:
    code, said = in_mid_work(scene, scene.job(), lambda: scene.service.delete("batch"))
    assert code == 1, said
    assert [state for state, _, _ in scene.windows] == ["closed"]


@pytest.mark.parametrize("what", ["replica", "zero", "clock", "update"])
def test_what_passes_is_waited_for_and_costs_no_attempt(scene: Scene, what: str) -> None:
    def happens() -> None:
        if what == "replica":
            scene.service.lose_replica("batch", 0.5)
        elif what == "zero":
            scene.service.scale_to_zero("batch")
        elif what == "clock":
            scene.service.jump(3600)  # the provider's idle timer fires

    scene.service.script("batch", bad_gateway=0.3 if what == "update" else 0.0)
    code, said = in_mid_work(scene, scene.job(), happens)
    assert code == 0, said
    assert scene.workplace.count("attempt") == 0
    assert scene.left_paused


def test_a_revoked_token_stops_at_once_and_says_what_is_still_on(scene: Scene) -> None:
    job = scene.job()
    code, said = in_mid_work(scene, job, scene.service.revoke)
    assert code == 1
    assert "was not seen paused" in said
    assert "It may still cost money" in said
    assert scene.service.endpoint("batch").state == "running"
    scene.service.grant(scene.service.token, MANAGE, INFER)
    until(lambda: scene.left_paused)  # the guard goes on trying
    until(lambda: not scene.workplace.processes())


def test_a_wrong_token_wakes_nobody(scene: Scene) -> None:
    scene.env |= {"HF_TOKEN": "hf_wrong"}
    said = scene.run("run", scene.job(), code=1)
    assert "hf_wrong" not in said
    assert not [call for call in scene.service.calls(" /v2/") if call.method != "GET"]


def test_a_token_that_may_manage_but_not_ask_stops_within_seconds(scene: Scene) -> None:
    scene.service.grant("hf_manager", MANAGE)
    scene.env |= {"HF_TOKEN": "hf_manager"}
    said = scene.run("run", scene.job(options="startup_timeout=5"), code=1)
    assert "403" in said
    assert scene.left_paused


# -- a control plane in trouble ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trouble",
    [
        Trouble(fraction=0.3),
        Trouble(fraction=0.3, body=HTML, status=502),
        Trouble(fraction=0.3, body=HTML, status=200),
        Trouble(fraction=0.3, body=JSON_STRING, status=200),
        Trouble(fraction=0.3, body=JSON_STRING, status=500),
        Trouble(fraction=0.3, status=429, retry_after=0.1),
        Trouble(fraction=0.3, after=True),
    ],
    ids=["5xx", "html 502", "html 200", "json string 200", "json string 500", "429", "lost answers"],
)
def test_a_control_plane_in_trouble_is_outlived(scene: Scene, trouble: Trouble) -> None:
    scene.service.trouble(trouble)
    scene.finishes(scene.job())


def test_a_control_plane_that_hangs_while_pausing_leaves_a_debt_that_the_guard_pays_later(scene: Scene) -> None:
    scene.service.behave(hold_after=ANSWERED)
    with scene.start(scene.job()) as running:
        scene.held_back()
        scene.service.trouble(Trouble(hang=True))
        os.kill(running.pid, signal.SIGKILL)
        until(lambda: any(call.left for call in scene.service.calls(" /v2/")))  # the guard's sweep has given up once
        scene.service.calm()
        until(lambda: scene.left_paused, seconds=60.0)
    until(lambda: not scene.workplace.processes())


def test_a_gateway_that_is_not_ready_after_running_is_waited_for(scene: Scene) -> None:
    scene.service.script("batch", bad_gateway=1.0, initializing=0.5)
    job = scene.job()
    scene.finishes(job)
    assert scene.workplace.count("attempt") == 0


# -- the users' own commands ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("killed", [False, True])
def test_a_server_that_commands_wake_and_pause_has_the_same_guarantees(
    workplace: Workplace, server: InferenceServer, *, killed: bool
) -> None:
    state = workplace.folder / "state"
    state.write_text("stopped\n")
    workplace.write_rows(rows(range(ITEMS)))
    server.behave(hold_after=ANSWERED if killed else None)
    commands = f"resume=['sh', '-c', 'echo running > {state}'], state=['cat', {str(state)!r}], "
    commands += f"pause=['sh', '-c', 'echo stopped > {state}'], look_every=0.1"
    job = workplace.job(
        prelude="from orchestrator.endpoints import CommandEndpoint",
        endpoint=f"CommandEndpoint('rig', {workplace.url!r}, {commands})",
        policy=f"concurrency={CONCURRENCY}",
    )
    with workplace.start("run", job) as running:
        if killed:
            until(lambda: workplace.count("result") == ANSWERED)
            assert state.read_text() == "running\n"
            os.kill(running.pid, signal.SIGKILL)
        assert running.end().code == (-signal.SIGKILL if killed else 0)
    until(lambda: workplace.query("SELECT state FROM awake_window") == [("closed",)])
    until(lambda: not workplace.processes())
    assert state.read_text() == "stopped\n"
