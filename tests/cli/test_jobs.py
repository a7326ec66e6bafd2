"""The commands for endpoints work on those whose servers are Hugging Face Jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.commands import until
from tests.hf_jobs_service import CANCELED, JobsService, jobs_service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.commands import Ended, Workplace

LABEL = "orchestrator-endpoint"


class JobsCli:
    """A workplace whose settings file names an endpoint of two jobs, `labeller`."""

    def __init__(self, workplace: Workplace, service: JobsService) -> None:
        self.workplace = workplace
        self.service = service
        self.env = {"HF_TOKEN": service.token, "HF_ENDPOINT": service.url, "ORCHESTRATOR_HF_API_URL": service.url}
        config = workplace.folder / ".config" / "orchestrator" / "config.toml"
        config.parent.mkdir(parents=True)
        config.write_text("""
            [endpoints.labeller]
            kind = "huggingface_job"
            name = "acme/labeller"
            image = "acme/server"
            command = ["serve"]
            flavor = "l4x1"
            replicas = 2
        """)

    def run(self, *arguments: str, code: int = 0) -> Ended:
        ended = self.workplace.run("endpoints", *arguments, env=self.env)
        assert ended.code == code, ended.err
        return ended


@pytest.fixture
def cli(workplace: Workplace) -> Iterator[JobsCli]:
    with jobs_service() as service:
        yield JobsCli(workplace, service)


def test_jobs_are_resumed_shown_listed_read_and_paused_by_hand(cli: JobsCli) -> None:
    service = cli.service
    theirs = service.add(name="somebody's")
    cli.run("resume", "labeller", "--wait", "--for", "2h")
    first, second = (job for job in service.alive() if job is not theirs)
    assert 7200 <= first.spec["timeoutSeconds"] <= 7500  # the provider's own timer follows --for
    first.log += ["ready"]
    shown = cli.run("show", "labeller", "--json").json
    assert (shown["endpoint"], shown["state"], shown["pause_owed"]) == ("acme/labeller", "2 of 2 jobs", False)
    assert shown["price_per_hour"] == pytest.approx(2 * 0.81)
    assert [(job["job"], job["replica"], job["stage"]) for job in shown["jobs"]] == [
        (first.id, 1, "RUNNING"),
        (second.id, 2, "RUNNING"),
    ]
    assert f"jobs: {first.id} RUNNING on l4x1, http://127.0.0.1:" in cli.run("show", "labeller").out
    listed = cli.run("list", "--json").json
    assert [(job["name"], job["job"]) for job in listed["jobs"]] == [
        ("acme/labeller", second.id),
        ("acme/labeller", first.id),
    ]
    assert sorted(cli.run("logs", "labeller").out.splitlines()) == [
        "replica 1\tloading",
        "replica 1\tready",
        "replica 2\tloading",
    ]
    assert cli.run("logs", "labeller", "--replica", "1", "--tail", "1").out == "ready\n"
    metrics = cli.run("metrics", "labeller").out.splitlines()
    assert f'job_cpu_usage_pct{{job="{first.id}",replica="1"}} 12' in metrics
    assert f'job_gpu_utilization{{job="{second.id}",replica="2",gpu="d901cd7f"}} 97' in metrics
    cli.run("pause", "labeller")
    assert (first.stage, second.stage, theirs.alive) == (CANCELED, CANCELED, True)
    ((seconds, by),) = cli.workplace.query("SELECT billed_seconds, closed_by FROM awake_window")
    assert (seconds, by) == (int(first.billed) + int(second.billed), "pause")


def test_jobs_that_only_a_job_file_declares_are_found_by_the_name_that_a_run_has_used(cli: JobsCli) -> None:
    settings = "image='acme/server', command=['serve'], flavor='cpu-basic'"
    cli.workplace.write_rows([{"id": "a", "text": "one"}])
    job = cli.workplace.job(
        prelude="from orchestrator.endpoints import HuggingFaceJobEndpoint",
        endpoint=f"HuggingFaceJobEndpoint('acme/other', {settings})",
    )
    assert cli.workplace.run("run", "--quiet", job, env=cli.env).code == 0
    assert cli.run("logs", "acme/other").out == "loading\n"  # of the last job, although it has ended
    shown = cli.run("show", "acme/other", "--json").json
    assert (shown["state"], [one["stage"] for one in shown["jobs"]]) == ("no job", [CANCELED])
    assert shown["price_per_hour"] is None
    cli.service.add(**{LABEL: "other"})
    cli.service.add(**{LABEL: "other"})
    assert cli.run("show", "acme/other", "--json").json["state"] == "2 jobs"
    cli.run("pause", "acme/other")
    assert "has no job now" in cli.run("metrics", "acme/other", code=2).line
    assert "set image=, command= and flavor=" in cli.run("resume", "acme/other", code=1).line
    assert cli.service.alive() == []


def test_jobs_are_looked_at_and_paused_where_the_secrets_of_their_containers_are_not_set(cli: JobsCli) -> None:
    with (cli.workplace.folder / ".config" / "orchestrator" / "config.toml").open("a") as settings:
        settings.write('secrets = ["WEIGHTS_KEY"]\n')
    job = cli.service.add(**{LABEL: "labeller"})
    assert job.id in cli.run("show", "labeller").out
    cli.run("pause", "labeller")
    assert job.stage == CANCELED
    assert (
        "set the environment variable WEIGHTS_KEY, which secrets= names" in cli.run("resume", "labeller", code=2).line
    )
    assert cli.service.alive() == []


def test_logs_are_followed_until_the_job_ends(cli: JobsCli) -> None:
    job = cli.service.add(**{LABEL: "labeller"})
    with cli.workplace.start("endpoints", "logs", "labeller", "-f", env=cli.env) as running:
        until(lambda: any("/logs" in call for call in cli.service.calls))
        cli.service.end(job, CANCELED)
        ended: Any = running.end()
    assert (ended.code, ended.out) == (0, "loading\n")


@pytest.mark.parametrize("verb", ["show", "logs"])
def test_an_endpoint_that_had_no_job_yet_is_said_to_have_none(cli: JobsCli, verb: str) -> None:
    if verb == "show":
        shown = cli.run("show", "labeller").out
        assert "jobs: none" in shown
        assert "price per hour" not in shown
    else:
        assert "endpoint acme/labeller had no job yet" in cli.run("logs", "labeller", code=2).line


def test_a_check_wakes_the_jobs_asks_once_and_leaves_none(cli: JobsCli) -> None:
    said = cli.run("check", "labeller", "--wake").out
    assert "it was no job" in said or "0 of 2 members awake" in said
    assert "GET /health was answered 200" in said
    assert "answered " in said
    assert (len(cli.service.jobs), cli.service.alive()) == (2, [])


def test_lists_need_no_ledger(cli: JobsCli) -> None:
    cli.workplace.ledger.write_bytes(b"not a ledger")
    cli.service.add(**{LABEL: "labeller"})
    assert "acme/labeller" in cli.run("list").out
