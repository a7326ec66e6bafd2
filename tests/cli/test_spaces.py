"""The commands for endpoints work on Hugging Face Spaces, which are named spaces/OWNER/NAME."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.commands import until
from tests.hf_spaces_service import PAUSED, RUNNING, SLEEPING, SpacesService, spaces_service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.commands import Ended, Workplace

NAME = "spaces/acme/labeller"


class SpacesCli:
    """A workplace whose settings file names an endpoint that is a Space, `labeller`."""

    def __init__(self, workplace: Workplace, service: SpacesService) -> None:
        self.workplace = workplace
        self.service = service
        self.space = service.add("labeller", hardware="l4x1")
        self.env = {"HF_TOKEN": service.token, "HF_ENDPOINT": service.url, "ORCHESTRATOR_HF_API_URL": service.url}
        config = workplace.folder / ".config" / "orchestrator" / "config.toml"
        config.parent.mkdir(parents=True)
        config.write_text("""
            [endpoints.labeller]
            kind = "huggingface_space"
            space = "acme/labeller"
            sleep_time = "1h"
            wire = { kind = "gradio", function = "predict" }
        """)

    def run(self, *arguments: str, code: int = 0) -> Ended:
        ended = self.workplace.run("endpoints", *arguments, env=self.env)
        assert ended.code == code, ended.err
        return ended


@pytest.fixture
def cli(workplace: Workplace) -> Iterator[SpacesCli]:
    with spaces_service() as service:
        yield SpacesCli(workplace, service)


def test_a_space_is_resumed_shown_listed_read_and_paused_by_hand(cli: SpacesCli) -> None:
    cli.service.add("free", hardware="cpu-basic", stage=RUNNING)
    cli.run("resume", "labeller", "--wait")
    assert (cli.space.stage, cli.space.sleep) == (RUNNING, 3600)
    shown = cli.run("show", NAME, "--json").json
    assert (shown["endpoint"], shown["kind"], shown["state"]) == (NAME, "HuggingFaceSpaceEndpoint", RUNNING)
    assert (shown["hardware"], shown["sleep_seconds"], shown["private"]) == ("l4x1", 3600, True)
    assert shown["price_per_hour"] == pytest.approx(0.8)
    assert f"url: {cli.space.url}" in cli.run("show", "labeller").out
    listed = cli.run("list", "--json").json["spaces"]
    assert [(space["name"], space["state"], space["hardware"]) for space in listed] == [(NAME, RUNNING, "l4x1")]
    assert NAME in cli.run("list").out
    assert cli.run("logs", NAME).out == "loading\n* Running on local URL\n"
    assert cli.run("logs", NAME, "--tail", "1").out == "* Running on local URL\n"
    assert "leave --replica out" in cli.run("logs", NAME, "--replica", "1", code=2).line
    assert cli.run("metrics", NAME).out == "app_requests 1\n"
    cli.run("pause", NAME)
    assert cli.space.stage == PAUSED
    assert cli.workplace.query("SELECT endpoint, state, closed_by FROM awake_window") == [(NAME, "closed", "pause")]


def test_the_log_of_a_space_whose_build_failed_is_that_of_its_build(cli: SpacesCli) -> None:
    cli.space.go("BUILD_ERROR", "exit code: 1")
    assert cli.run("logs", NAME).out == "#1 building\n#2 pip install failed\n"
    assert "message: exit code: 1" in cli.run("show", NAME).out
    cli.run("resume", NAME, "--wait")  # a restart builds it again
    assert cli.space.stage == RUNNING


def test_a_log_is_followed_until_the_space_stops(cli: SpacesCli) -> None:
    cli.space.go(RUNNING)
    assert "leave --tail out" in cli.run("logs", NAME, "-f", "--tail", "1", code=2).line
    with cli.workplace.start("endpoints", "logs", NAME, "-f", env=cli.env) as running:
        until(lambda: any("/logs/run" in call for call in cli.service.calls))
        cli.space.go(PAUSED)
        ended: Any = running.end()
    assert (ended.code, ended.out) == (0, "loading\n* Running on local URL\n")


def test_a_space_that_is_asleep_is_paused_when_it_is_paused_by_hand(cli: SpacesCli) -> None:
    cli.space.go(SLEEPING)
    cli.run("pause", NAME)
    assert cli.space.stage == PAUSED


def test_a_check_wakes_the_space_asks_once_and_pauses_it(cli: SpacesCli) -> None:
    said = cli.run("check", "labeller", "--wake").out
    assert "it was PAUSED on l4x1, and was woken: RUNNING on l4x1" in said
    assert "may restart and pause the Space" in said
    assert "GET / was answered 200" in said
    assert (len(cli.space.asked), cli.space.stage) == (1, PAUSED)


@pytest.mark.parametrize(
    ("account", "message"),
    [
        (
            {"name": "acme", "auth": {"accessToken": {"role": "read"}}},
            "HF_TOKEN holds a token that may only read: it needs the role write, or the scope repo.write on acme",
        ),
        (
            {"name": "ann", "orgs": []},
            "belongs to ann, who is no member of acme: only its owner may restart and pause a Space",
        ),
    ],
)
def test_a_check_says_which_permission_is_missing_before_anything_is_woken(
    cli: SpacesCli, account: dict[str, Any], message: str
) -> None:
    cli.service.account = account
    assert message in cli.run("check", NAME, "--wake", code=1).out
    assert cli.space.restarts == 0


def test_names_that_cannot_be_spaces_are_refused(cli: SpacesCli) -> None:
    assert "there is no endpoint spaces/acme/nothing" in cli.run("show", "spaces/acme/nothing", code=1).line
    assert "a Space is named OWNER/NAME" in cli.run("show", "spaces/nothing", code=2).line
    assert "scale-to-zero is for Hugging Face endpoints only" in cli.run("scale-to-zero", NAME, code=2).line
