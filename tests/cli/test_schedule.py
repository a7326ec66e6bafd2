from __future__ import annotations

import os
import pwd
import re
import shlex
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.commands import COMMAND, rows

if TYPE_CHECKING:
    from tests.commands import Workplace

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "schedules.md").read_text(encoding="utf-8")
PARIS = ("--tz", "Europe/Paris")


def test_a_schedule_is_added_shown_paused_resumed_fired_and_removed(workplace: Workplace) -> None:
    job = workplace.job()
    workplace.make_ledger()
    none = workplace.run("schedule", "list")
    assert (none.code, none.out) == (0, "there is no schedule\n")

    added = workplace.run("schedule", "add", job, "--cron", "30 2 * * *", *PARIS, "--overlap", "buffer_one")
    assert added.code == 0
    assert added.out.startswith("job talk is run at '30 2 * * *' Europe/Paris; next: ")
    assert "orchestrator serve" in added.err  # nothing fires while no daemon is running

    (listed,) = workplace.run("schedule", "list", "--json").json["schedules"]
    assert (listed["job"], listed["tz"], listed["overlap"]) == ("talk", "Europe/Paris", "buffer_one")
    assert (listed["paused"], listed["missed"], listed["last"]) == (False, 0, None)
    assert listed["next_slot"] > time.time()
    assert "02:30 CE" in workplace.run("schedule", "list").out

    assert workplace.run("schedule", "pause", "talk").code == 0
    assert "paused" in workplace.run("schedule", "list").out
    assert "it is paused" in workplace.run("schedule", "next", "talk").err
    assert "goes on; next: " in workplace.run("schedule", "resume", "talk").out

    fired = workplace.run("schedule", "fire", "talk", "--json")
    assert (fired.json["run"], fired.json["served"]) == (1, False)
    assert workplace.query("SELECT endpoint FROM uses") == [(workplace.url,)]
    again = workplace.run("schedule", "fire", "talk")  # buffer_one: one run may wait
    assert (again.code, "an earlier run of 'talk' is not over yet" in again.line) == (2, True)

    workplace.change("UPDATE schedule SET next_slot = unixepoch() - 1000")
    assert "overdue" in workplace.run("schedule", "list").out

    assert workplace.run("schedule", "remove", "talk").code == 0
    assert workplace.run("schedule", "list", "--json").json["schedules"] == []
    unknown = workplace.run("schedule", "pause", "talk")
    assert (unknown.code, unknown.line) == (
        2,
        "orchestrator: there is no schedule of a job 'talk'; see `orchestrator schedule list`",
    )


def test_next_shows_when_a_schedule_fires_and_what_is_unusual_about_that_time(workplace: Workplace) -> None:
    workplace.run("schedule", "add", workplace.job(), "--cron", "30 2 * 3 *", *PARIS)
    shown = workplace.run("schedule", "next", "talk", "--count", "31", "--json").json
    assert (shown["job"], len(shown["next"])) == ("talk", 31)
    odd = [slot for slot in shown["next"] if slot["note"]]
    assert [slot["note"] for slot in odd] == [
        "02:30 does not exist that day: the slot is when the clocks go forward",
    ]
    assert datetime.fromisoformat(odd[0]["zone"]).hour == 3
    assert datetime.fromtimestamp(odd[0]["slot"], UTC) == datetime.fromisoformat(odd[0]["utc"])
    lines = workplace.run("schedule", "next", "talk", "--count", "31").out.splitlines()
    assert sum("does not exist" in line for line in lines) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cron", "61 * * * *"], "bad minute"),
        (["--cron", "0 2 * * *", "--tz", "Mars/Olympus"], "no time zone 'Mars/Olympus'"),
        (["--cron", "0 2 * * *", "--overlap", "often"], "'often' is not one of"),
        (["--cron", "0 2 * * *", "--catch-up-window", "soon"], "catch_up_window must be seconds"),
    ],
)
def test_an_invalid_schedule_is_refused(workplace: Workplace, arguments: list[str], said: str) -> None:
    refused = workplace.run("schedule", "add", workplace.job(), *arguments)
    assert refused.code == 2
    assert said in re.sub(r"[│\s]+", " ", refused.err)
    assert workplace.count("schedule") == 0


def test_a_schedule_declared_in_a_job_file_is_changed_only_there(workplace: Workplace) -> None:
    job = workplace.job(policy="), schedule=__import__('orchestrator').Cron('0 2 * * *'")
    refused = workplace.run("schedule", "add", job, "--cron", "0 3 * * *")
    assert (refused.code, "has a schedule= of its own" in re.sub(r"[│\s]+", " ", refused.err)) == (2, True)
    described = workplace.run("describe", job, "--json", db=False).json
    assert (described["job"], described["schedule"]["expression"]) == ("talk", "0 2 * * *")
    assert described["endpoints"] == [workplace.url]
    assert len(described["fingerprint"]) == 64


# -- settings ---------------------------------------------------------------------------------------------------------


def test_folders_in_the_settings_are_relative_to_their_file(workplace: Workplace) -> None:
    config = workplace.folder / "etc" / "config.toml"
    config.parent.mkdir()
    config.write_text('[serve]\njobs = ["jobs", "../more", "/srv/jobs", "~/mine"]\nruns = 2\n')
    program = "from orchestrator.config import load_settings; print(*load_settings(None, None).serve.jobs, sep='\\n')"
    found = bare([sys.executable, "-c", program], workplace, ORCHESTRATOR_CONFIG="etc/config.toml")
    folder = workplace.folder
    assert found.stdout.split() == [f"{folder}/etc/jobs", f"{folder}/more", "/srv/jobs", f"{folder}/mine"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[serve]\njob = []\n", "there is no setting 'serve.job'; there is jobs, runs"),
        ("[serve]\nruns = 0\n", "serve.runs: "),
        (
            "[server.tokens.ann]\nrole = 'run'\ntoken_env = 'T'\nx = 1\n",
            "'server.tokens.ann.x'; there is role, token_env",
        ),
        ("[serve]\njobs = 'jobs'\n", "serve.jobs: "),
    ],
)
def test_an_unknown_setting_is_reported_with_the_valid_ones(workplace: Workplace, text: str, said: str) -> None:
    config = workplace.folder / "config.toml"
    config.write_text(text)
    refused = workplace.run("--config", config, "schedule", "list")
    assert (refused.code, said in refused.line) == (2, True)


# -- the system's own cron --------------------------------------------------------------------------------------------


def bare(command: list[str] | str, workplace: Workplace, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as cron and systemd do: no login shell, only the variables that they set."""
    cron = {"PATH": "/usr/bin:/bin", "HOME": str(workplace.folder), "LOGNAME": "batch", "SHELL": "/bin/sh"}
    return subprocess.run(
        command,
        shell=isinstance(command, str),
        env={name: value for name, value in (cron | environment).items() if value},
        cwd=workplace.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def installed(line: str, workplace: Workplace) -> str:
    """Return the documented command with the paths of this test."""
    here = {
        "/srv/batch/.venv/bin/orchestrator": shlex.join(COMMAND),
        "/srv/batch/config.toml": str(workplace.folder / "config.toml"),
        "/srv/batch/jobs/nightly.py": str(workplace.folder / "job.py"),
    }
    for documented, real in here.items():
        assert documented in line
        line = line.replace(documented, real)
    return line


def documented() -> dict[str, str]:
    (cron,) = re.findall(r"^30 2 \* \* \*  (/srv.*)$", DOCS, re.MULTILINE)
    (unit,) = re.findall(r"^ExecStart=(.*)$", DOCS, re.MULTILINE)
    return {"cron": cron, "systemd": unit}


@pytest.mark.parametrize("by", ["cron", "systemd"])
def test_the_documented_command_runs_quietly_with_an_empty_environment(workplace: Workplace, by: str) -> None:
    workplace.write_rows(rows(range(5)))
    workplace.job()
    (workplace.folder / "config.toml").write_text(f"db = {str(workplace.ledger)!r}\n")
    command = installed(documented()[by], workplace)
    done = bare(command if by == "cron" else shlex.split(command), workplace)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(workplace.outputs()) == 5
    assert workplace.count("run", "state = 'finished'") == 1

    workplace.rows.unlink()
    failed = bare(command, workplace)
    assert failed.returncode == 2
    assert len(failed.stderr.splitlines()) == 1
    assert failed.stdout == ""


def test_the_default_ledger_and_settings_are_in_the_home_folder(workplace: Workplace) -> None:
    workplace.write_rows(rows(range(3)))
    job = workplace.job()
    settings = workplace.folder / ".config" / "orchestrator" / "config.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text(f"db = {str(workplace.ledger)!r}\n")
    done = bare([*COMMAND, "run", str(job), "--quiet"], workplace)
    assert (done.returncode, done.stderr) == (0, "")
    assert workplace.count("result") == 3


def test_without_home_the_folder_comes_from_the_user_database(workplace: Workplace) -> None:
    program = "from orchestrator.config import Settings; print(Settings().ledger)"
    found = bare([sys.executable, "-c", program], workplace, HOME="")
    home = pwd.getpwuid(os.getuid()).pw_dir
    assert found.stdout.strip() == f"{home}/.local/share/orchestrator/ledger.db"


def test_a_user_without_a_home_folder_is_asked_to_name_the_ledger(workplace: Workplace) -> None:
    homeless = "import os, pwd, sys; pwd.getpwuid = lambda number: {}[number]; "  # as for an unknown user number
    program = homeless + "from orchestrator.cli import main; sys.argv = ['orchestrator', *sys.argv[1:]]; main()"
    refused = bare([sys.executable, "-c", program, "runs"], workplace, HOME="")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "orchestrator: this user has no home folder: name the ledger with --db PATH, or set HOME\n"
    workplace.make_ledger()
    named = bare([sys.executable, "-c", program, "--db", str(workplace.ledger), "runs"], workplace, HOME="")
    assert (named.returncode, named.stderr) == (0, "")
