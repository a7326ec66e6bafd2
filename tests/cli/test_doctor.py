"""`doctor`: what it says about a healthy installation, and about each possible fault."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.app.doctor import CHECKS
from tests.commands import rows, until
from tests.faults.conftest import service  # noqa: F401 - a fixture
from tests.faults.scene import Scene, guard_of
from tests.faults.small_disk import fill, small_disk

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commands import Ended, Workplace
    from tests.hf_service import HfService
    from tests.servers import InferenceServer

ITEMS = 60


def findings(ended: Ended) -> dict[str, Any]:
    """Return the findings by name; each finding that is not fine has a remedy."""
    found = {one["name"]: one for one in ended.json["checks"]}
    assert ended.err == ""
    assert all(one["remedy"] for one in found.values() if one["verdict"] != "ok")
    failed = [one for one in found.values() if one["verdict"] == "fail"]
    assert (ended.code, ended.json["ok"]) == ((1, False) if failed else (0, True))
    return found


def not_well(found: dict[str, Any]) -> dict[str, str]:
    return {name: one["verdict"] for name, one in found.items() if one["verdict"] != "ok"}


def used(workplace: Workplace) -> Path:
    workplace.write_rows(rows(range(ITEMS), text="text of {}" + "." * 2000))
    job = workplace.job()
    assert workplace.run("run", "--quiet", job).code == 0
    return job


def test_before_the_first_run_everything_is_fine_and_nothing_is_created(workplace: Workplace) -> None:
    found = findings(workplace.run("doctor", "--json"))
    assert not_well(found) == {}
    assert "none yet" in found["ledger"]["seen"]
    assert not workplace.ledger.exists()


def test_after_a_run_every_check_has_a_line_and_passes(workplace: Workplace) -> None:
    job = used(workplace)
    ended = workplace.run("doctor", job)
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert [line for line in lines if not line.startswith("ok ")] == []
    assert len(lines) >= len(CHECKS) - 1  # every endpoint is fine
    assert any(f"endpoint {workplace.url}" in line and "answers" in line for line in lines)
    before = workplace.ledger.read_bytes()
    assert workplace.run("doctor", "--json").json["ok"] is True
    assert workplace.ledger.read_bytes() == before


def test_broken_pages_are_found(workplace: Workplace) -> None:
    used(workplace)
    content = bytearray(workplace.ledger.read_bytes())
    content[-6 * 8192 : -2 * 8192] = os.urandom(4 * 8192)
    workplace.ledger.write_bytes(content)
    found = not_well(findings(workplace.run("doctor", "--json")))
    assert found in ({"pages": "fail"}, {"ledger": "fail"})  # SQLite cannot even continue the check here
    assert "restore a backup" in workplace.run("doctor").out


def test_a_dangling_reference_is_found(workplace: Workplace) -> None:
    used(workplace)
    workplace.change("DELETE FROM item WHERE key = 1")
    found = findings(workplace.run("doctor", "--json"))
    assert not_well(found) == {"pages": "fail"}
    assert "2 rows refer" in found["pages"]["seen"]


@pytest.mark.parametrize("content", [b"hello", bytes(10_000), os.urandom(10_000)])
def test_a_file_that_is_not_a_ledger_is_reported(workplace: Workplace, content: bytes) -> None:
    workplace.ledger.write_bytes(content)
    assert not_well(findings(workplace.run("doctor", "--json"))) == {"ledger": "fail"}
    assert workplace.ledger.read_bytes() == content


def test_the_database_of_another_program_is_not_a_ledger(workplace: Workplace) -> None:
    workplace.change("CREATE TABLE something (a)")
    found = findings(workplace.run("doctor", "--json"))
    assert not_well(found) == {"ledger": "fail"}
    assert "not a ledger" in found["ledger"]["seen"]


@pytest.mark.parametrize(
    ("revision", "verdict", "remedy"), [("9999", "fail", "upgrade"), ("0001", "warn", "keeps a copy")]
)
def test_a_ledger_of_another_version_is_recognized(
    workplace: Workplace, revision: str, verdict: str, remedy: str
) -> None:
    used(workplace)
    workplace.change("UPDATE alembic_version SET version_num = ?", [revision])
    found = findings(workplace.run("doctor", "--json"))
    assert not_well(found) == {"ledger": verdict}
    assert remedy in found["ledger"]["remedy"]
    assert workplace.query("SELECT version_num FROM alembic_version") == [(revision,)]


def test_a_full_disk_and_a_read_only_disk_are_found(workplace: Workplace) -> None:
    with small_disk(workplace.folder / "disk") as disk:
        workplace.ledger = disk / "ledger.db"
        workplace.make_ledger()
        assert not_well(findings(workplace.run("doctor", "--json"))) == {"disk": "fail"}
        filler = fill(disk)
        assert not_well(findings(workplace.run("doctor", "--json"))) == {"disk": "fail"}
        filler.unlink()
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        assert not_well(findings(workplace.run("doctor", "--json"))) == {"disk": "fail", "ledger": "fail"}


def test_a_clock_that_was_set_back_is_found(workplace: Workplace) -> None:
    used(workplace)
    workplace.change("UPDATE run SET created_at = ?", [time.time() + 3600])
    found = findings(workplace.run("doctor", "--json"))
    assert not_well(found) == {"clock": "warn"}
    assert "the ledger has entries from" in found["clock"]["seen"]


def test_tokens_are_named_by_their_source_and_never_shown(workplace: Workplace) -> None:
    config = workplace.folder / "config.toml"
    url = workplace.url
    config.write_text(
        f"[endpoints.one]\nkind = 'http'\nurl = '{url}'\ntoken_env = 'ONE_TOKEN'\n"
        "[endpoints.two]\nkind = 'huggingface'\nname = 'acme/batch'\n[endpoints.three]\nkind = 'nonsense'\n"
    )
    found = findings(workplace.run("--config", config, "doctor", "--offline", "--json"))
    assert not_well(found) == {"token of one": "fail", "Hugging Face token": "fail", "endpoint three": "fail"}
    assert found["token of one"]["remedy"] == "set ONE_TOKEN"
    ended = workplace.run(
        "--config", config, "doctor", "--offline", "--json", env={"ONE_TOKEN": "s3cret", "HF_TOKEN": "hf_s3cret"}
    )
    assert not_well(findings(ended)) == {"endpoint three": "fail"}
    assert "environment variable HF_TOKEN" in ended.out
    assert "s3cret" not in ended.out


def test_a_silent_endpoint_and_a_broken_job_file_are_found(workplace: Workplace) -> None:
    workplace.write_rows([{"id": 0, "text": "one"}])
    silent = workplace.job("silent.py", endpoint="HttpEndpoint('http://127.0.0.1:9/')")
    found = findings(workplace.run("doctor", silent, "--json"))
    assert not_well(found) == {"endpoint http://127.0.0.1:9/": "fail"}
    assert "endpoints check" in found["endpoint http://127.0.0.1:9/"]["remedy"]
    assert not_well(findings(workplace.run("doctor", silent, "--offline", "--json"))) == {}
    broken = workplace.folder / "broken.py"
    for text, said in (("1 / 0", "ZeroDivisionError"), ("exit(3)", "called exit")):
        broken.write_text(text)
        found = findings(workplace.run("doctor", broken, "--json"))
        assert not_well(found) == {f"endpoint {broken}": "fail"}
        assert said in found[f"endpoint {broken}"]["seen"]


def test_a_run_whose_process_was_killed_is_found_and_a_live_one_is_fine(
    workplace: Workplace, server: InferenceServer
) -> None:
    workplace.write_rows(rows(range(ITEMS)))
    server.behave(hold_after=10)
    with workplace.start("run", "--quiet", workplace.job()) as running:
        until(lambda: workplace.count("result") == 10)
        found = findings(workplace.run("doctor", "--json"))
        assert not_well(found) == {}
        assert "1 being executed" in found["runs"]["seen"]
        running.kill()
    found = findings(workplace.run("doctor", "--json"))
    assert not_well(found) == {"runs": "warn"}
    assert "run 1: the process has died" in found["runs"]["seen"]


def test_queued_runs_without_a_daemon_are_found(workplace: Workplace) -> None:
    workplace.write_rows(rows(range(3)))
    assert workplace.run("submit", workplace.job()).code == 0
    found = findings(workplace.run("doctor", "--json"))
    assert not_well(found) == {"daemon": "fail"}
    assert "orchestrator serve" in found["daemon"]["remedy"]
    with workplace.start("serve") as running:
        until(lambda: workplace.count("process", "state = 'live' AND serves = 1") == 1)
        assert not_well(findings(workplace.run("doctor", "--json"))) == {}
        running.send(signal.SIGTERM)
        assert running.end().code == 0


@pytest.mark.usefixtures("server")
def test_a_missing_guard_and_an_unpaid_debt_are_found(workplace: Workplace, service: HfService) -> None:  # noqa: F811
    scene = Scene(workplace, service)
    service.behave(hold_after=12)
    job = scene.job()
    with scene.start(job) as running:
        scene.held_back()
        looked = findings(workplace.run("doctor", job, "--json", env=scene.env))
        assert not_well(looked) == {}
        assert "its guard is running" in looked["guard"]["seen"]
        assert "awake" in looked["endpoint acme/batch"]["seen"]
        guard = guard_of(running)
        workplace.suspend(running.pid)  # it would start another guard
        guard.kill()
        until(lambda: not guard.is_running() or guard.status() == "zombie")
        assert not_well(findings(workplace.run("doctor", "--json", env=scene.env))) == {"guard": "fail"}
        os.kill(running.pid, signal.SIGKILL)
        running.end()
    found = findings(workplace.run("doctor", "--json", env=scene.env))
    assert not_well(found) == {"debt": "fail", "runs": "warn"}
    assert "orchestrator sweep" in found["debt"]["remedy"]
    assert workplace.run("sweep", "--quiet", env=scene.env).code == 0
    assert not_well(findings(workplace.run("doctor", "--json", env=scene.env))) == {}


@pytest.mark.parametrize(
    ("source", "request_", "name", "verdict", "seen"),
    [
        ("JsonlSource('no.jsonl')", "'{text}'", "source", "fail", "no.jsonl does not exist"),
        ("IterableSource(list)", "'{text}'", "source", "warn", "has no rows"),
        ("IterableSource(lambda: 1 / 0)", "'{text}'", "source", "fail", "division by zero"),
        ("JsonlSource('rows.jsonl')", "'{text}'", "source", "warn", "line 1 is not valid JSON"),
        ("IterableSource([{'text': 'x'}])", "'{words}'", "request", "fail", "column 'words'"),
        ("IterableSource([{'text': 'x'}])", "lambda row: row['words']", "request", "fail", "KeyError: 'words'"),
        ("IterableSource([{'text': 'x'}])", "lambda row: {1}", "request", "fail", "is not JSON serializable"),
        ("IterableSource([{'text': 'x'}])", "'{text}'", "source", "ok", "the first row makes a request"),
    ],
)
def test_the_first_row_of_a_job_is_tried(
    workplace: Workplace, source: str, request_: str, name: str, verdict: str, seen: str
) -> None:
    workplace.rows.with_name("rows.jsonl").write_text("text,length\n")
    prelude = "from orchestrator.sources import IterableSource"
    job = workplace.job(prelude=prelude, source=source, request=request_)
    found = findings(workplace.run("doctor", "--json", job))
    assert (found[name]["verdict"], seen in found[name]["seen"]) == (verdict, True), found[name]


@pytest.mark.parametrize(
    ("rows", "name", "verdict", "seen"),
    [
        ("[{'text': 'x'}]", "source", "ok", "the first row can be given to the rollout"),
        ("[{'text': {1}}]", "request", "fail", "is not JSON serializable"),
    ],
)
def test_the_first_row_of_a_rollout_must_have_a_json_form(
    workplace: Workplace, rows: str, name: str, verdict: str, seen: str
) -> None:
    job = workplace.folder / "rollout.py"
    job.write_text(
        "from orchestrator import Job\nfrom orchestrator.endpoints import HttpEndpoint\n"
        "from orchestrator.sources import IterableSource\n\nasync def rollout(row, ask):\n    return await ask(row)\n\n"
        f"job = Job('qa', IterableSource({rows}), {{'a': HttpEndpoint({workplace.url!r})}}, rollout=rollout)\n"
    )
    found = findings(workplace.run("doctor", "--json", job))
    assert (found[name]["verdict"], seen in found[name]["seen"]) == (verdict, True), found[name]
