"""However a load test ends, the endpoint that it woke is paused and paid for: real processes, a real service."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.commands import until
from tests.hf_service import Trouble

if TYPE_CHECKING:
    from tests.commands import Ended
    from tests.faults.scene import Scene

BENCH = ("endpoints", "bench", "acme/batch")
PRICED = '[endpoints.batch]\nkind = "huggingface"\nname = "acme/batch"\nprice_per_hour = 3.6\n'


@pytest.fixture
def priced(scene: Scene) -> Scene:
    """Return the scene with the endpoint in config.toml, at a tenth of a cent a second."""
    config = scene.workplace.folder / "config.toml"
    config.write_text(PRICED)
    scene.env["ORCHESTRATOR_CONFIG"] = str(config)
    return scene


def bench(scene: Scene, *arguments: str, code: int = 0, name: str = "acme/batch") -> Ended:
    ended = scene.workplace.run("endpoints", "bench", name, *arguments, env=scene.env)
    assert (ended.code, "Traceback" in ended.err) == (code, False), ended.err
    assert scene.service.token not in ended.out + ended.err
    return ended


def loaded(scene: Scene) -> Any:
    """Start a load test that would last for an hour; it is sending when this returns."""
    return scene.workplace.start(*BENCH, "--for", "1h", "--concurrency", "4", "--json", env=scene.env)


def busy(scene: Scene) -> None:
    until(lambda: scene.service.endpoint("batch").in_flight == 4)


def test_a_load_test_wakes_the_endpoint_measures_pauses_it_and_says_what_it_cost(priced: Scene) -> None:
    found = bench(priced, "--rate", "50", "--for", "1s", "--json", name="batch").json
    assert priced.left_paused
    assert priced.windows == [("closed", 1, "run")]
    assert found["proof"].startswith("endpoint acme/batch read as paused at 20")
    assert found["cold_start"] > 0
    assert found["cost"] == pytest.approx(found["awake"]["all"] / 1000)
    assert found["cost_per_1000"] == pytest.approx(1 / found["figures"]["items_per_second"])
    costs = priced.workplace.run("costs", "--json").json["costs"]
    assert [cost["what"] for cost in costs] == ["(bench)"]


def test_latencies_do_not_count_the_cold_start(scene: Scene) -> None:
    scene.service.script("batch", initializing=2.0)
    found = bench(scene, "--for", "1s", "--json").json
    assert found["cold_start"] > 2.0
    assert found["figures"]["from_arrival"]["longest"] < 2.0


@pytest.mark.parametrize("times", [1, 2])
def test_signals_end_in_a_paused_endpoint(scene: Scene, times: int) -> None:
    scene.service.behave(hold_after=30)
    with loaded(scene) as running:
        busy(scene)
        for _ in range(times):
            running.send(signal.SIGINT)
        if times == 1:
            scene.service.behave()
        ended = running.end()
    assert ended.code == 130
    if times == 1:  # what was measured until then is reported
        assert ended.json["ended"] == "interrupted"
        assert ended.json["figures"]["answered"] == 29 + 4
    assert scene.left_paused


def test_a_load_test_that_is_interrupted_while_the_endpoint_starts_leaves_it_paused(scene: Scene) -> None:
    scene.service.script("batch", initializing=3600.0)
    with loaded(scene) as running:
        scene.service.wait_for_state("batch", "initializing")
        running.send(signal.SIGINT)
        assert running.end().code == 130
    assert scene.left_paused


def test_after_kill_9_the_guard_pauses_the_endpoint(scene: Scene) -> None:
    scene.service.behave(hold_after=30)
    with loaded(scene) as running:
        busy(scene)
        os.kill(running.pid, signal.SIGKILL)
        scene.service.wait_for_state("batch", "paused")
        until(lambda: scene.left_paused)
    assert scene.windows == [("closed", 1, "sweep")]


def test_a_load_test_ends_when_its_budget_is_spent(priced: Scene) -> None:
    found = bench(priced, "--for", "1h", "--max-cost", "0.002", "--json", code=4, name="batch").json
    assert found["ended"].startswith("the budget is spent (")
    assert found["figures"]["answered"] > 0
    assert 0.002 <= found["cost"] < 0.02
    assert priced.left_paused
    # the next one has a budget of its own
    found = bench(priced, "--for", "1h", "--max-cost", "0.002", "--json", code=4, name="batch").json
    assert found["figures"]["answered"] > 0


def test_the_budget_of_the_day_covers_load_tests(priced: Scene) -> None:
    config = priced.workplace.folder / "config.toml"
    config.write_text(f"{PRICED}[budget]\nmax_cost_per_day = 0.002\n")
    bench(priced, "--for", "1h", "--json", code=4, name="batch")
    resumes = len(priced.service.calls("POST .*/resume"))
    ended = bench(priced, "--for", "1h", code=4, name="batch")
    assert "the budget of all jobs for the day is spent" in ended.err
    assert len(priced.service.calls("POST .*/resume")) == resumes == 1


def test_a_budget_without_a_price_is_refused_and_nothing_stays_on(scene: Scene) -> None:
    scene.service.trouble(Trouble(" /v2/provider"))
    ended = bench(scene, "--for", "1h", "--max-cost", "1", code=2)
    assert "--max-cost needs to know what the endpoint costs: set price_per_hour=" in ended.err
    assert scene.left_paused


def test_a_load_test_pays_the_debts_of_dead_processes(scene: Scene) -> None:
    scene.service.add("other")
    scene.service.script("other", initializing=3600.0)
    command = ("endpoints", "bench", "acme/other", "--for", "1h")
    with scene.workplace.start(*command, env=scene.env) as running:
        scene.service.wait_for_state("other", "initializing")
        scene.workplace.change("UPDATE process SET host = 'elsewhere/1', lease_until = 0")
        bench(scene, "--for", "1s")
        assert scene.service.endpoint("other").state == "paused"
        running.kill()
    until(lambda: scene.left_paused)


def test_a_load_test_and_a_run_share_one_endpoint_which_the_last_one_pauses(scene: Scene) -> None:
    with loaded(scene) as running:
        until(lambda: scene.service.endpoint("batch").state == "running")
        until(lambda: scene.service.endpoint("batch").in_flight > 0)
        assert "is still used by another run" in scene.run("run", scene.job())
        assert scene.service.endpoint("batch").state == "running"
        running.send(signal.SIGINT)
        assert running.end().code == 130
    assert scene.left_paused


def test_after_kill_9_of_a_canary_the_guard_pauses_the_endpoint(scene: Scene) -> None:
    scene.service.behave(hold_after=4)
    with scene.workplace.start("plan", "--canary", "16", scene.job(), env=scene.env) as running:
        until(lambda: len(scene.service.calls("POST /data/")) > 4)
        os.kill(running.pid, signal.SIGKILL)
        scene.service.wait_for_state("batch", "paused")
        until(lambda: scene.left_paused)
    assert scene.windows == [("closed", 1, "sweep")]
    scene.service.behave()
    scene.run("run", scene.job())
    assert scene.left_paused
