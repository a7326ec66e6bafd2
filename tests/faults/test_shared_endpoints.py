"""Endpoints that are shared, paused by others, created for one run, or in trouble: real processes, a real service."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from orchestrator.engine.asking.concurrency import UNPROVEN_LIMIT
from tests.commands import rows, until
from tests.faults.scene import ANSWERED, CONCURRENCY, ITEMS, PRELUDE, guard_of
from tests.hf_service import HTML, INFER, JSON_STRING, MANAGE, Trouble

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.commands import Workplace
    from tests.faults.scene import Scene
    from tests.servers import InferenceServer

pytestmark = pytest.mark.unmeasured


# -- shared endpoints and external pauses -----------------------------------------------------------------------------


def test_two_processes_share_one_window_and_the_last_one_pauses(scene: Scene) -> None:
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
        until(lambda: scene.service.endpoint("batch").in_flight >= CONCURRENCY + UNPROVEN_LIMIT)
        scene.service.behave()
        said = [running.end() for running in (one, two)]
    assert [ended.code for ended in said] == [0, 0], said
    assert scene.left_paused
    assert len(scene.service.calls("POST /v2/.*/resume")) == 1
    assert len(scene.service.calls("POST /v2/.*/pause")) == 1
    assert scene.workplace.count("awake_window") == 1


def test_if_the_process_that_resumed_is_killed_the_other_continues_and_pauses(scene: Scene) -> None:
    scene.service.behave(hold_after=ANSWERED)
    sink = f"JsonlSink({str(scene.workplace.folder / 'second.jsonl')!r})"
    with scene.start(scene.job()) as one:
        until(lambda: scene.service.endpoint("batch").in_flight == CONCURRENCY)
        with scene.start(scene.job("second.py", name="'second'", sink=sink)) as two:
            until(lambda: scene.service.endpoint("batch").in_flight >= CONCURRENCY + UNPROVEN_LIMIT)
            guard = guard_of(one)
            os.kill(one.pid, signal.SIGKILL)
            one.end()
            until(lambda: not guard.is_running())  # it has looked, and there was no debt to pay
            assert scene.service.endpoint("batch").state == "running"
            scene.service.behave()
            assert two.end().code == 0
    assert scene.left_paused
    assert scene.windows == [("closed", 1, "run")]


def test_if_the_process_that_resumed_has_left_and_the_ledger_is_gone_the_other_guard_pauses(scene: Scene) -> None:
    scene.service.behave(hold_after=ANSWERED, delays={"slow": 600.0})
    source, sink = "IterableSource([{'text': 'slow'}])", f"JsonlSink({str(scene.workplace.folder / 'second.jsonl')!r})"
    with scene.start(scene.job()) as one:
        scene.held_back()
        with scene.start(scene.job("second.py", name="'second'", source=source, sink=sink)) as two:
            until(lambda: scene.service.endpoint("batch").in_flight == CONCURRENCY + 1)
            scene.service.behave(delays={"slow": 600.0})
            assert one.end().code == 0
            assert scene.service.endpoint("batch").state == "running"
            scene.workplace.ledger.unlink()
            os.kill(two.pid, signal.SIGKILL)
            scene.service.wait_for_state("batch", "paused")
    until(lambda: not scene.workplace.processes())


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
def test_an_ephemeral_endpoint_is_created_for_the_run_and_always_deleted(scene: Scene, *, killed: bool) -> None:
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


def test_an_endpoint_that_was_running_before_stays_running(scene: Scene) -> None:
    scene.service.add("theirs", state="running")
    job = scene.workplace.job(prelude=PRELUDE, endpoint="HuggingFaceEndpoint('acme/theirs')")
    assert "was left as it was found: running" in scene.run("run", job)
    assert scene.service.endpoint("theirs").state == "running"
    assert not [call for call in scene.service.calls("/v2/.*theirs") if call.method != "GET"]


def test_an_endpoint_that_was_scaled_to_zero_is_scaled_to_zero_again(scene: Scene) -> None:
    scene.service.add("dozing", state="scaledToZero")
    job = scene.workplace.job(prelude=PRELUDE, endpoint="HuggingFaceEndpoint('acme/dozing')")
    assert "read as scaledToZero" in scene.run("run", job)
    assert scene.service.endpoint("dozing").state == "scaledToZero"


# -- trouble during a run ---------------------------------------------------------------------------------------------


def in_mid_work(scene: Scene, job: Path, happens: Callable[[], object]) -> tuple[int, str]:
    """Cause an event while requests are in flight; return exit code and messages."""
    scene.service.behave(hold_after=ANSWERED)
    with scene.start(job) as running:
        scene.held_back()
        happens()
        scene.service.behave()
        ended = running.end()
    assert "Traceback" not in ended.err
    return ended.code, ended.err


def test_an_external_pause_stops_the_run(scene: Scene) -> None:
    job = scene.job()
    code, said = in_mid_work(scene, job, lambda: scene.service.pause_from_outside("batch"))
    assert (code, "endpoint acme/batch was paused while it was used" in said) == (4, True)
    assert scene.left_paused
    scene.finishes(job)


def test_an_external_pause_is_undone_if_the_policy_says_so(scene: Scene) -> None:
    job = scene.job(policy=f"concurrency={CONCURRENCY}, on_foreign_pause='resume'")
    code, said = in_mid_work(scene, job, lambda: scene.service.pause_from_outside("batch"))
    assert code == 0, said
    assert scene.left_paused
    assert scene.workplace.count("attempt") == 0  # lifecycle trouble counts no attempt


def test_a_failing_endpoint_fails_the_run_with_the_message_of_the_provider(scene: Scene) -> None:
    code, said = in_mid_work(scene, scene.job(), lambda: scene.service.fail("batch", "Xid 79: GPU fell off the bus"))
    assert (code, "GPU fell off the bus" in said) == (1, True)
    assert scene.left_paused


def test_a_deleted_endpoint_fails_the_run_and_owes_nothing(scene: Scene) -> None:
    code, said = in_mid_work(scene, scene.job(), lambda: scene.service.delete("batch"))
    assert code == 1, said
    assert [state for state, _, _ in scene.windows] == ["closed"]


@pytest.mark.parametrize("what", ["replica", "zero", "clock", "update"])
def test_transient_trouble_is_waited_for_and_counts_no_attempt(scene: Scene, what: str) -> None:
    def happens() -> None:
        if what == "replica":
            scene.service.lose_replica("batch", 0.5)
        elif what == "zero":
            scene.service.scale_to_zero("batch")
        elif what == "clock":
            scene.service.jump(3600)  # the idle timer of the provider fires

    scene.service.script("batch", bad_gateway=0.3 if what == "update" else 0.0)
    code, said = in_mid_work(scene, scene.job(), happens)
    assert code == 0, said
    assert scene.workplace.count("attempt") == 0
    assert scene.left_paused


def test_a_revoked_token_stops_the_run_at_once_and_names_what_is_still_running(scene: Scene) -> None:
    job = scene.job()
    code, said = in_mid_work(scene, job, scene.service.revoke)
    assert code == 1
    assert "could not confirm that endpoint acme/batch is paused" in said
    assert "It may still cost money" in said
    assert scene.service.endpoint("batch").state == "running"
    scene.service.grant(scene.service.token, MANAGE, INFER)
    until(lambda: scene.left_paused)  # the guard keeps trying
    until(lambda: not scene.workplace.processes())


def test_a_wrong_token_wakes_nothing(scene: Scene) -> None:
    scene.env |= {"HF_TOKEN": "hf_wrong"}
    said = scene.run("run", scene.job(), code=1)
    assert "hf_wrong" not in said
    assert not [call for call in scene.service.calls(" /v2/") if call.method != "GET"]


def test_a_token_that_can_manage_but_not_query_stops_the_run_before_the_startup_timeout(scene: Scene) -> None:
    scene.service.grant("hf_manager", MANAGE)
    scene.env |= {"HF_TOKEN": "hf_manager"}
    said = scene.run("run", scene.job(options="startup_timeout=3600"), code=1)
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
def test_a_run_survives_control_plane_errors(scene: Scene, trouble: Trouble) -> None:
    scene.service.trouble(trouble)
    scene.finishes(scene.job())


def test_a_control_plane_that_hangs_while_pausing_leaves_a_debt_that_the_guard_pays_later(scene: Scene) -> None:
    scene.service.behave(hold_after=ANSWERED)
    with scene.start(scene.job()) as running:
        scene.held_back()
        scene.service.trouble(Trouble(hang=True))
        os.kill(running.pid, signal.SIGKILL)
        until(lambda: any(call.left for call in scene.service.calls(" /v2/")))  # the guard has given up once
        scene.service.calm()
        until(lambda: scene.left_paused, seconds=60.0)
    until(lambda: not scene.workplace.processes())


def test_a_refused_pause_is_reported_even_if_the_run_is_cut_short(scene: Scene) -> None:
    scene.service.behave(hold_after=ANSWERED)
    with scene.start(scene.job()) as running:
        scene.held_back()
        scene.service.trouble(Trouble("POST /v2/.*/pause", status=403))
        running.send(signal.SIGINT)
        running.says("stopping")
        running.send(signal.SIGINT)
        ended = running.end()
    assert "could not confirm that endpoint acme/batch is paused" in ended.err
    assert "Traceback" not in ended.err
    assert ended.code == 1
    scene.service.calm()
    until(lambda: scene.left_paused, seconds=60.0)  # the guard keeps trying
    until(lambda: not scene.workplace.processes())


def test_a_gateway_that_is_not_ready_after_the_endpoint_is_waited_for(scene: Scene) -> None:
    scene.service.script("batch", bad_gateway=1.0, initializing=0.5)
    job = scene.job()
    scene.finishes(job)
    assert scene.workplace.count("attempt") == 0


# -- the users' own commands ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("killed", [False, True])
def test_a_server_woken_and_paused_by_commands_has_the_same_guarantees(
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
