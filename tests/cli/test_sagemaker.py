"""The commands for endpoints work on those of SageMaker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.commands import until
from tests.sagemaker_service import KEY, SECRET, SageMakerService, sagemaker_service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.commands import Ended, Workplace

TAG = "orchestrator-endpoint"
NAME = "eu-west-1/labeller"


class SageMakerCli:
    """A workplace whose settings file names an endpoint, `reviews`, and a component, `part`."""

    def __init__(self, workplace: Workplace, service: SageMakerService) -> None:
        self.workplace = workplace
        self.service = service
        self.env = service.environment
        config = workplace.folder / ".config" / "orchestrator" / "config.toml"
        config.parent.mkdir(parents=True)
        config.write_text("""
            [endpoints.reviews]
            kind = "sagemaker"
            name = "labeller"
            price_per_hour = 1.5

            [endpoints.part]
            kind = "sagemaker"
            name = "shared"
            component = "labeller"
        """)

    def run(self, *arguments: str, code: int = 0) -> Ended:
        ended = self.workplace.run("endpoints", *arguments, env=self.env)
        assert ended.code == code, ended.err
        return ended


@pytest.fixture
def cli(workplace: Workplace) -> Iterator[SageMakerCli]:
    with sagemaker_service() as service:
        yield SageMakerCli(workplace, service)


def test_an_endpoint_is_created_shown_read_and_deleted_by_hand(cli: SageMakerCli) -> None:
    shown = cli.run("show", "reviews", "--json").json
    assert (shown["endpoint"], shown["state"]) == (NAME, "deleted; its configuration labeller stays")
    assert "has no log" in cli.run("logs", "reviews", code=2).line
    cli.run("resume", "reviews", "--wait", "--for", "2h")
    assert cli.service["labeller"].tags[TAG] == NAME
    shown = cli.run("show", "reviews", "--json").json
    assert (shown["state"], shown["instances"], shown["instance_types"]) == ("InService", 1, "ml.g4dn.xlarge")
    assert "price per hour: $1.5" in cli.run("show", "reviews").out
    assert cli.run("logs", "reviews").out.splitlines() == cli.service.log
    assert cli.run("logs", "reviews", "--tail", "1").out == "the model is ready\n"
    assert "SageMaker keeps them in CloudWatch (AWS/SageMaker)" in cli.run("metrics", "reviews", code=2).line
    cli.run("pause", "reviews")
    assert cli.service.alive() == []
    assert set(cli.service.configs) == {"labeller"}
    ledger = cli.workplace.ledger.read_bytes()
    assert KEY.encode() not in ledger
    assert SECRET.encode() not in ledger


def test_an_endpoint_that_no_run_has_created_is_not_deleted_by_hand(cli: SageMakerCli) -> None:
    theirs = cli.service.add("labeller", team="production")
    ended = cli.run("pause", "reviews", code=1)
    assert "was not created by a run, so it is not deleted: set pause='always' if it may be" in ended.err
    assert cli.service.alive() == [theirs]


def test_the_endpoints_of_a_region_are_listed(cli: SageMakerCli) -> None:
    assert cli.run("list", "--region", "eu-west-1").out == "eu-west-1 has no endpoints\n"
    cli.run("resume", "reviews", "--wait")
    cli.service.add("theirs")
    listed = cli.run("list", "--region", "eu-west-1", "--json").json["endpoints"]
    assert [(one["name"], one["state"], one["price_per_hour"], one["created_by_a_run"]) for one in listed] == [
        (NAME, "InService", 1.5, True),
        ("eu-west-1/theirs", "InService", None, False),
    ]
    words = cli.run("list", "--region", "eu-west-1").out.splitlines()
    assert words[1].split() == [NAME, "InService", "ml.g4dn.xlarge", "x1", "$1.5", "a", "run"]
    assert words[2].endswith("an unknown price  somebody else")
    assert "give one of them" in cli.run("list", "--region", "eu-west-1", "--namespace", "acme", code=2).line
    cli.service.denied.add("sagemaker:ListEndpoints")
    assert "has to allow sagemaker:ListEndpoints" in cli.run("list", "--region", "eu-west-1", code=1).line
    cli.run("pause", "reviews")


def test_a_component_gets_copies_and_loses_them_by_hand(cli: SageMakerCli) -> None:
    cli.service.add_config("shared", components=True)
    cli.service.add("shared").instances = 0
    component = cli.service.add_component("labeller", "shared")
    cli.run("resume", "part", "--wait")
    assert (component.copies, cli.service["shared"].instances) == (1, 1)
    assert cli.run("show", "part", "--json").json["state"] == "InService, 1 of 1 copies"
    cli.run("pause", "part")
    assert (component.copies, cli.service["shared"].instances) == (0, 0)


def test_an_endpoint_that_only_a_job_file_declares_is_found_by_the_name_that_a_run_has_used(cli: SageMakerCli) -> None:
    cli.workplace.write_rows([{"id": "a", "text": "one"}])
    job = cli.workplace.job(
        prelude="from orchestrator.endpoints import SageMakerEndpoint",
        endpoint="SageMakerEndpoint('other', config='labeller')",
    )
    assert cli.workplace.run("run", "--quiet", job, env=cli.env).code == 0
    assert cli.run("show", "eu-west-1/other", "--json").json["configuration"] == "labeller"
    cli.run("resume", "eu-west-1/other", "--wait")
    assert cli.service["other"].config == "labeller"
    cli.run("pause", "eu-west-1/other")
    assert cli.service.alive() == []


def test_logs_are_followed(cli: SageMakerCli) -> None:
    cli.service.add("labeller")
    with cli.workplace.start("endpoints", "logs", "reviews", "-f", env=cli.env) as running:
        until(lambda: cli.service.calls.count("FilterLogEvents") >= 3)  # two pages, and one of what is new
        cli.service.log.append("a request came")
        assert running.process.stdout is not None
        assert any("a request came" in line for line in running.process.stdout)
        running.kill()


def test_a_check_names_every_missing_permission(cli: SageMakerCli) -> None:
    cli.service.add("labeller")
    said = cli.run("check", "reviews").out
    assert "credentials from env may read and invoke it" in said
    assert "the container answers" in said
    cli.service.denied |= {"sagemaker:ListTags", "sagemaker:InvokeEndpoint"}
    said = cli.run("check", "reviews", code=1).out
    assert "the IAM policy has to allow sagemaker:ListTags on arn:" in said
    assert ", sagemaker:InvokeEndpoint on arn:" in said


@pytest.mark.parametrize("action", ["ListTags", "DeleteEndpoint"])
def test_a_check_creates_no_endpoint_that_could_not_be_deleted(cli: SageMakerCli, action: str) -> None:
    cli.service.denied.add(f"sagemaker:{action}")
    said = cli.run("check", "reviews", "--wake", code=1).out
    assert f"the IAM policy has to allow sagemaker:{action} on arn:" in said
    assert cli.service.endpoints == []


@pytest.mark.parametrize("action", ["CreateEndpoint", "AddTags"])
def test_a_check_that_wakes_names_the_permission_to_create(cli: SageMakerCli, action: str) -> None:
    cli.service.denied.add(f"sagemaker:{action}")
    assert (
        f"the IAM policy has to allow sagemaker:{action} on arn:" in cli.run("check", "reviews", "--wake", code=1).out
    )


def test_a_check_asks_for_no_permission_that_a_component_does_not_need(cli: SageMakerCli) -> None:
    cli.service.add_config("shared", components=True)
    cli.service.add("shared")
    cli.service.add_component("labeller", "shared", copies=1)
    cli.service.denied |= {f"sagemaker:{name}" for name in ("ListTags", "DescribeEndpointConfig", "DeleteEndpoint")}
    assert "may read and invoke it" in cli.run("check", "part").out
    cli.service.denied.add("sagemaker:ListInferenceComponents")
    assert "has to allow sagemaker:ListInferenceComponents on" in cli.run("check", "part", code=1).out


def test_a_check_wakes_the_endpoint_asks_once_and_deletes_it(cli: SageMakerCli) -> None:
    said: Any = cli.run("check", "reviews", "--wake").out
    assert "it was deleted; its configuration labeller stays, and was woken: InService" in said
    assert "answered " in said
    assert cli.service.alive() == []
    assert len(cli.service.endpoints[0].asked) == 1
