"""An endpoint woken by `endpoints resume`: shown as awake, billed, used by runs, and paused at its deadline."""

from __future__ import annotations

from getpass import getuser
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commands import Ended, Workplace
    from tests.servers import InferenceServer


class Woken:
    """An endpoint whose commands create, check and remove a file."""

    def __init__(self, workplace: Workplace, url: str) -> None:
        self.workplace = workplace
        self.awake = workplace.folder / "awake"
        config = workplace.folder / "config.toml"
        config.write_text(f"""
            [endpoints.mine]
            kind = "command"
            url = "{url}"
            resume = ["touch", "{self.awake}"]
            state = ["sh", "-c", "test -e {self.awake} && echo up || echo down"]
            pause = ["rm", "-f", "{self.awake}"]
            price_per_hour = 4.0
            look_every = 0.05
        """)
        self.env = {"ORCHESTRATOR_CONFIG": str(config), "NO_COLOR": "1"}

    def run(self, *arguments: str | Path) -> Ended:
        ended = self.workplace.run(*arguments, env=self.env)
        assert "Traceback" not in ended.err
        return ended

    def costs(self) -> dict[str, float]:
        return {cost["what"]: cost["dollars"] for cost in self.run("costs", "--json").json["costs"]}


@pytest.fixture
def woken(workplace: Workplace, server: InferenceServer) -> Woken:
    return Woken(workplace, server.url)


def test_waking_an_endpoint_says_how_to_pause_it_with_the_same_ledger(woken: Woken) -> None:
    ledger = str(woken.workplace.ledger)
    said = woken.run("--db", ledger, "endpoints", "resume", "mine").out
    assert said.splitlines()[-1].endswith(f": orchestrator --db {ledger} endpoints pause mine")


def test_a_woken_endpoint_is_shown_with_its_holder_and_billed_until_it_is_paused(woken: Woken) -> None:
    assert woken.run("endpoints", "resume", "mine").code == 0
    report = woken.run("report").out
    assert "mine has been awake since " in report
    assert f"{getuser()} keeps it awake until `orchestrator endpoints pause mine`" in report
    assert f"kept awake: by {getuser()}\n" in woken.run("endpoints", "show", "mine").out
    assert woken.run("sweep").err == "nothing is owed\n"
    assert f"{getuser()} has kept endpoint mine awake" in woken.run("doctor").out
    assert woken.awake.exists()
    woken.workplace.change("UPDATE awake_window SET resumed_at = resumed_at - 3600")
    assert 4.0 <= woken.costs()["(resume)"] < 4.1
    assert woken.run("endpoints", "pause", "mine").out.startswith("endpoint mine read as down at ")
    assert "mine: read as down at " in woken.run("report").out
    assert 4.0 <= woken.costs()["(resume)"] < 4.1


def test_a_run_uses_a_woken_endpoint_and_leaves_it_awake(woken: Woken) -> None:
    job = woken.workplace.job(endpoint="named('mine')", prelude="from orchestrator.endpoints import named")
    woken.workplace.write_rows([{"id": "1", "text": "a"}])
    woken.run("endpoints", "resume", "mine")
    ended = woken.run("run", job)
    assert ended.code == 0, ended.err
    assert f"endpoint mine was left awake, as {getuser()} keeps it: up" in ended.err + ended.out
    assert woken.awake.exists()
    assert set(woken.costs()) == {"(resume)", "talk"}


def test_the_first_sweep_after_the_deadline_pauses_the_endpoint(woken: Woken) -> None:
    ended = woken.run("endpoints", "resume", "mine", "--for", "1h")
    assert "it will be paused 1 h 0 min from now by `orchestrator serve`" in ended.out
    assert woken.run("sweep").err == "nothing is owed\n"
    woken.workplace.change("UPDATE hold SET expires_at = expires_at - 3601")
    assert "it is no longer in use" in woken.run("report").out
    assert woken.run("sweep").err.startswith("endpoint mine read as down at ")
    assert not woken.awake.exists()


def test_with_a_deadline_an_already_running_endpoint_is_paused(woken: Woken) -> None:
    woken.awake.touch()
    assert "needed no resuming" in woken.run("endpoints", "resume", "mine", "--for", "1s").out
    woken.workplace.change("UPDATE hold SET expires_at = 0")
    woken.run("sweep")
    assert not woken.awake.exists()


def test_a_sweep_finds_that_an_endpoint_was_paused_externally(woken: Woken) -> None:
    woken.run("endpoints", "resume", "mine")
    woken.awake.unlink()
    woken.workplace.change("UPDATE awake_window SET asked_at = asked_at - 100, looked_at = looked_at - 100")
    woken.run("sweep")
    assert "mine: was found asleep at " in woken.run("report").out


def test_an_endpoint_that_cannot_be_woken_leaves_nothing_in_the_ledger(woken: Woken) -> None:
    config = woken.workplace.folder / "config.toml"
    config.write_text(config.read_text().replace('["touch"', '["false"'))
    assert woken.run("endpoints", "resume", "mine").code == 1
    assert woken.workplace.query("SELECT * FROM awake_window") == []


@pytest.mark.parametrize("wrong", ["soon", "2"])
def test_an_invalid_duration_is_refused(woken: Woken, wrong: str) -> None:
    ended = woken.run("endpoints", "resume", "mine", "--for", wrong)
    assert ended.code == 2
    assert "not a duration" in ended.err
    assert not woken.awake.exists()
