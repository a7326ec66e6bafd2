"""Every command as a user types it."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest
from pydantic import TypeAdapter

from orchestrator.config import Settings
from tests.commands import Workplace, rows, until
from tests.servers import TURNED_AWAY, answer_to

if TYPE_CHECKING:
    from tests.servers import InferenceServer

ITEMS = 40
# `mixed()`: its shortest row is asked last, so that only a probe can show whether the server is down; one is worth it
# once the row has been refused twice. A row refused with 400 is neither asked again nor probed.
REQUESTS = ITEMS + TURNED_AWAY + (TURNED_AWAY - 1)
COMMANDS = ["run", "plan", "status", "runs", "items", "item", "retry", "export", "cancel", "prune"]
ROOT = Path(__file__).parents[2]


def mixed() -> list[dict[str, object]]:
    """Return forty rows; two are refused by the server, one needs three attempts."""
    given = rows(range(ITEMS))
    for number, text in {4: "poison one", 11: "flaky", 30: "poison two"}.items():
        given[number] = given[number] | {"text": text}
    return given


def test_a_command_imports_no_library_that_it_does_not_use() -> None:
    heavy = {"pyarrow", "numpy", "torch", "transformers", "huggingface_hub"}
    code = f"import sys; from orchestrator.cli.app import app; print(sorted({heavy} & sys.modules.keys()))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


# -- run --------------------------------------------------------------------------------------------------------------


def test_a_run_without_failures_exits_with_0_and_can_be_quiet(workplace: Workplace) -> None:
    workplace.write_rows(rows(range(ITEMS)))
    job = workplace.job()
    ended = workplace.run("run", "--quiet", job)
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    ended = workplace.run("run", job)
    assert (ended.code, ended.out) == (0, "")
    assert str(workplace.ledger) in ended.err
    assert "SQLite" in ended.err
    assert "plan: 0 new, 0 edited, 40 reused, 0 to retry" in ended.err
    assert f"output: {workplace.output}" in ended.err


def test_a_run_with_discarded_items_exits_with_3_and_gives_the_reasons(
    workplace: Workplace, server: InferenceServer
) -> None:
    workplace.write_rows(mixed())
    ended = workplace.run("run", "--quiet", workplace.job())
    assert (ended.code, ended.out) == (3, "")
    assert "38 completed, 2 discarded" in ended.err
    assert "rejected 400" in ended.err
    assert "this input is poison" in ended.err
    assert "orchestrator retry 1" in ended.err
    assert server.quiet().by_input["flaky"] == TURNED_AWAY + 1
    assert server.quiet().by_input["poison one"] == 1
    assert [row["id"] for row in workplace.outputs()] == [f"i{n}" for n in range(ITEMS) if n not in {4, 30}]
    assert workplace.failures() == [
        row | {"error": {"kind": "rejected", "status": 400, "message": "this input is poison"}, "attempts": 1}
        for row in (mixed()[4], mixed()[30])
    ]


def test_tokens_are_reported_if_the_server_counts_them(workplace: Workplace) -> None:
    workplace.write_rows(rows(range(ITEMS)))
    job = workplace.job()
    ended = workplace.run("run", "--json", job)
    assert "\ntokens " not in ended.err
    assert (ended.json["tokens_in"], ended.json["tokens_out"]) == (None, None)
    assert "\ntokens " not in workplace.run("status").out
    workplace.change("UPDATE chunk SET tokens_in = 30 * (hi - lo)")
    assert "tokens 1,200 in\n" in workplace.run("run", job).err
    workplace.change("UPDATE chunk SET tokens_out = 2 * (hi - lo)")
    ended = workplace.run("run", "--json", job)
    assert "tokens 1,200 in, 80 out\n" in ended.err
    assert (ended.json["tokens_in"], ended.json["tokens_out"]) == (1200, 80)
    assert "tokens 1,200 in, 80 out\n" in workplace.run("status").out
    status = workplace.run("status", "--json").json
    assert (status["tokens_in"], status["tokens_out"]) == (1200, 80)


def test_what_run_reports_as_json(workplace: Workplace, server: InferenceServer) -> None:
    workplace.write_rows(mixed())
    ended = workplace.run("run", "--json", "--quiet", workplace.job())
    report = ended.json
    assert (ended.code, report["exit_code"], report["state"], report["job"]) == (3, 3, "finished", "talk")
    assert report["plan"] == {"new": ITEMS, "edited": 0, "reused": 0, "retry": 0, "discarded": 0, "left_out": 0}
    assert report["counts"] == {"total": ITEMS, "completed": 38, "discarded": 2, "leased": 0}
    assert report["requests"] == server.quiet().requests == REQUESTS
    assert report["output"] == str(workplace.output)
    (cause,) = report["failures"]
    assert (cause["kind"], cause["status"], cause["items"], cause["sample"]) == ("rejected", 400, 2, "i4")
    assert report["manifest"]["counts"] == {"inputs": ITEMS, "completed": 38, "discarded": 2, "skipped": 0}


def test_a_run_survives_transient_failures(workplace: Workplace, server: InferenceServer) -> None:
    given = rows(range(ITEMS))
    for number, text in {1: "drop one", 2: "drop two", 3: "hang", 4: "garbled"}.items():
        given[number] = given[number] | {"text": text}
    workplace.write_rows(given)
    job = workplace.job(policy="concurrency=4, timeout=4, max_attempts=3, backoff=Backoff(first=0.01)")
    assert workplace.run("run", "--quiet", job).code == 3
    assert len(workplace.outputs()) == ITEMS - 1
    (failure,) = workplace.failures()
    assert (failure["id"], failure["error"]["kind"], failure["attempts"]) == ("i4", "garbled", 3)
    shown = workplace.run("item", "talk", "i3", "--json").json
    assert [(attempt["number"], attempt["outcome"]) for attempt in shown["attempts"]] == [
        (1, "retry_later"),
        (2, "completed"),
    ]
    assert shown["attempts"][0]["kind"] == "timeout"
    assert server.stats().by_input["hang"] == 2


def test_a_malformed_line_becomes_one_discarded_item(workplace: Workplace, server: InferenceServer) -> None:
    workplace.write_rows(rows(range(5)))
    workplace.rows.write_bytes(
        workplace.rows.read_bytes() + b'{"id": "broken", \n' + b'{"id": "last", "text": "end"}\n'
    )
    assert workplace.run("run", "--quiet", workplace.job()).code == 3
    assert [row["id"] for row in workplace.outputs()] == ["i0", "i1", "i2", "i3", "i4", "last"]
    (failure,) = workplace.failures()
    assert (failure["error"]["kind"], failure["attempts"]) == ("unreadable", 0)
    assert "line 6" in failure["error"]["message"]
    assert server.quiet().requests == 6


def test_an_empty_input_gives_an_empty_output(workplace: Workplace, server: InferenceServer) -> None:
    workplace.write_rows([])
    assert workplace.run("run", "--quiet", workplace.job()).code == 0
    assert workplace.outputs() == []
    assert workplace.manifest()["counts"] == {"inputs": 0, "completed": 0, "discarded": 0, "skipped": 0}
    assert server.stats().requests == 0


def test_batches_are_sent_as_lists_and_a_poisoned_item_affects_no_other(
    workplace: Workplace, server: InferenceServer
) -> None:
    workplace.write_rows(mixed())
    ended = workplace.run("run", "--quiet", "--set", "policy.batch_size=8", workplace.job())
    assert ended.code == 3
    assert [row["id"] for row in workplace.failures()] == ["i4", "i30"]
    assert [row["output"]["said"] for row in workplace.outputs()] == [
        answer_to(str(row["text"])) for row in mixed() if "poison" not in str(row["text"])
    ]
    assert server.quiet().requests < ITEMS


@pytest.mark.parametrize("status", [400, 413])
def test_a_server_that_refuses_everything_stops_the_run_early(
    workplace: Workplace, server: InferenceServer, status: int
) -> None:
    workplace.write_rows(rows(range(1000)))
    job = workplace.job(policy="concurrency=4, breaker=10")
    server.behave(status=status)
    ended = workplace.run("run", "--quiet", "--json", job)
    assert ended.code == 1
    assert f"requests in a row failed for the same cause (rejected {status}: as you were told)" in ended.line
    assert ended.json["exit_code"] == 1
    assert server.quiet().requests <= 10 + 2 * 4
    found = workplace.run("status", "--json").json
    assert found["state"] == "failed"
    assert "requests in a row" in found["error"]
    counts = found["counts"]
    assert (counts["total"], counts["completed"], counts["discarded"], counts["leased"]) == (1000, 0, 0, 0)
    assert (workplace.count("result"), workplace.count("attempt")) == (0, 0)  # no lease had to be released
    server.behave()
    assert workplace.run("run", "--quiet", job).code == 0
    assert len(workplace.outputs()) == 1000


# -- status and items -------------------------------------------------------------------------------------------------


@pytest.fixture
def finished(workplace: Workplace, server: InferenceServer) -> Workplace:
    workplace.write_rows(mixed())
    workplace.job()
    assert workplace.run("run", "--quiet", workplace.folder / "job.py").code == 3
    assert server.quiet().requests == REQUESTS
    return workplace


def test_status_and_runs_show_the_progress(finished: Workplace) -> None:
    status = finished.run("status", "--json")
    assert (status.code, status.err) == (0, "")
    said = status.json
    traffic = said.pop("traffic")
    assert (traffic["requests"], traffic["in_flight"]) == (REQUESTS, 0)
    assert 0 < traffic["latency"]["p50"] <= traffic["latency"]["p99"] <= traffic["latency"]["longest"]
    assert traffic["failed"] == [
        {"kind": "rate_limited", "status": 503, "attempts": TURNED_AWAY, "retried": TURNED_AWAY},
        {"kind": "rejected", "status": 400, "attempts": 2, "retried": 0},
    ]
    assert traffic["statuses"] == {"200": REQUESTS - 2 - TURNED_AWAY, "400": 2, "503": TURNED_AWAY}
    assert finished.run("report", "1", "--json").json["runs"][0]["traffic"] == traffic
    failed = "failed attempts: 2 rate_limited 503 (2 retried), 2 rejected 400"
    by_status = f"requests by status: {REQUESTS - 2 - TURNED_AWAY} x 200, 2 x 400, {TURNED_AWAY} x 503"
    assert by_status in finished.run("status").out
    assert by_status in finished.run("report").out
    assert failed in finished.run("status").out
    assert failed in finished.run("report").out
    assert said == {
        "run": 1,
        "job": "talk",
        "state": "finished",
        "counts": {"total": ITEMS, "completed": 38, "discarded": 2, "leased": 0, "available": 0},
        "rate": None,
        "seconds_left": None,
        "cost_left": None,
        "waiting": None,
        "asks": [],
        "noted": {},
        "tokens_in": None,
        "tokens_out": None,
        "error": None,
        "failures": [
            {"kind": "rejected", "status": 400, "message": "this input is poison", "items": 2, "sample": "i4"}
        ],
        "workers": [],
    }
    for name in ("1", "talk"):
        assert "run 1 of talk: finished" in finished.run("status", name).out
    listed = finished.run("runs", "--json").json["runs"]
    assert [(run["run"], run["job"], run["state"], run["counts"]["discarded"]) for run in listed] == [
        (1, "talk", "finished", 2)
    ]
    assert "talk" in finished.run("runs").out


def test_items_and_item_show_what_happened(finished: Workplace) -> None:
    every = finished.run("items", "1", "--json").json["items"]
    assert [item["id"] for item in every] == [f"i{number}" for number in range(ITEMS)]
    assert every[0] == {
        "id": "i0",
        "position": 0,
        "state": "completed",
        "attempts": 1,
        "output": {"said": answer_to("text of 0"), "pad": ""},
        "error": None,
        "notes": [],
    }
    discarded = finished.run("items", "talk", "--state", "discarded", "--json").json["items"]
    assert [(item["id"], item["error"]["status"]) for item in discarded] == [("i4", 400), ("i30", 400)]
    assert finished.run("items", "1", "--limit", "3").out.count("\n") == 3
    one = finished.run("item", "1", "i11", "--json").json
    assert (one["request"], one["state"], one["kept"]) == ("flaky", "completed", {"text": "flaky"})
    assert [attempt.get("status") for attempt in one["attempts"]] == [503, 503, None]
    assert [attempt["outcome"] for attempt in one["attempts"]] == ["retry_later", "retry_later", "completed"]
    shown = finished.run("item", "1", "i4").out
    assert "poison one" in shown
    assert "attempt 1: discarded" in shown
    missing = finished.run("item", "1", "nobody")
    assert (missing.code, "no item 'nobody'" in missing.line) == (2, True)


def test_status_on_an_empty_ledger_says_so(workplace: Workplace) -> None:
    workplace.make_ledger()
    ended = workplace.run("status", "--json")
    assert ended.code == 2
    assert "no run yet" in ended.line
    assert workplace.run("runs", "--json").json == {"runs": []}


# -- retry ------------------------------------------------------------------------------------------------------------


def test_retry_asks_only_the_discarded_items_again(finished: Workplace, server: InferenceServer) -> None:
    planned = finished.run("plan", finished.folder / "job.py")
    assert planned.out == "0 new, 0 edited, 38 reused, 0 to retry, 2 discarded earlier\n"
    before = server.stats().requests
    again = finished.run("retry", "1", "--json", "--quiet")
    assert again.code == 3
    assert again.json["counts"]["discarded"] == 2
    after = server.quiet()
    assert after.requests == before + 2
    assert (after.by_input["poison one"], after.by_input["poison two"]) == (2, 2)
    assert [row["attempts"] for row in finished.failures()] == [2, 2]


def test_retry_completes_the_run_once_the_cause_is_fixed(workplace: Workplace, server: InferenceServer) -> None:
    workplace.write_rows(rows(range(5)))
    server.behave(status=422)
    assert workplace.run("run", "--quiet", workplace.job()).code == 3
    assert len(workplace.failures()) == 5
    server.behave()
    ended = workplace.run("retry", "talk")
    assert ended.code == 0
    assert "5 discarded items of run 1 are available again" in ended.err
    assert [row["output"]["said"] for row in workplace.outputs()] == [answer_to(f"text of {n}") for n in range(5)]
    assert workplace.failures() == []
    assert workplace.run("retry", "talk", "--quiet").code == 0
    assert server.quiet().requests == 10


def test_retry_asks_only_items_that_failed_for_one_cause(workplace: Workplace, server: InferenceServer) -> None:
    workplace.write_rows([*rows(range(2)), {"id": "p", "text": "poison one"}, {"id": "q", "text": "poison two"}])
    refuses = f"lambda answer: answer if answer['said'] != {answer_to('text of 0')!r} else 1 / 0"
    assert workplace.run("run", "--quiet", workplace.job(parse=refuses)).code == 3
    refused = workplace.run("retry", "1", "--like", "no such row")
    assert (refused.code, "run 1 has no discarded item 'no such row'" in refused.line) == (2, True)
    before = dict(server.quiet().by_input)
    ended = workplace.run("retry", "1", "--like", "q")
    assert ended.code == 3
    assert "2 discarded items of run 1 are available again" in ended.err
    after = server.quiet().by_input
    assert {text for text in after if after[text] != before[text]} == {"poison one", "poison two"}
    assert [row["attempts"] for row in workplace.failures()] == [1, 2, 2]


def test_retry_of_a_queued_run_that_has_not_begun_says_so_and_makes_no_second_run(workplace: Workplace) -> None:
    workplace.write_rows(rows(range(2)))
    assert workplace.run("submit", workplace.job()).code == 0
    for name in ("1", "talk"):
        refused = workplace.run("retry", name)
        assert refused.code == 2
        assert refused.line.startswith("orchestrator: run 1 of talk is queued and has not begun")
    assert workplace.count("run") == 1


def test_retry_from_another_folder_finds_the_files_of_the_run(workplace: Workplace, server: InferenceServer) -> None:
    workplace.write_rows(rows(range(9)))
    server.behave(status=422)
    job = workplace.job(source="JsonlSource('rows.jsonl', id='id')", sink="JsonlSink('out.jsonl')")
    assert workplace.run("run", "--quiet", "--limit", "5", job).code == 3
    server.behave()
    assert workplace.run("run", "--quiet", job).code == 3
    elsewhere = Workplace(workplace.folder / "elsewhere", server.url)
    elsewhere.folder.mkdir()
    elsewhere.ledger = Path("..") / "ledger.db"
    ended = elsewhere.run("retry", "1")
    assert ended.code == 0, ended.err
    assert "5 discarded items of run 1 are available again, and are asked where run 2 has them" in ended.err
    assert len(workplace.outputs()) == 9
    assert list(elsewhere.folder.iterdir()) == []
    workplace.change("UPDATE run SET spec = json_remove(spec, '$.folder')")  # as an older version left it
    refused = elsewhere.run("retry", "2")
    assert (refused.code, "go to that folder first" in refused.line) == (2, True)
    assert workplace.run("retry", "2").code == 0


# -- live runs --------------------------------------------------------------------------------------------------------


def test_a_live_run_can_be_inspected_and_exported(workplace: Workplace, server: InferenceServer) -> None:
    workplace.write_rows(mixed())
    job = workplace.job()
    server.behave(hold_after=20)
    with workplace.start("run", "--quiet", job) as running:
        server.wait(lambda stats: stats.requests == 28)
        until(lambda: workplace.count("result") + workplace.count("attempt", "outcome = 'retry_later'") >= 20)
        settled = workplace.count("result")
        status = workplace.run("status", "--json").json
        assert status["state"] == "running"
        assert status["counts"]["completed"] + status["counts"]["discarded"] == settled
        assert status["counts"]["leased"] == ITEMS - settled
        until(lambda: "8 requests in flight; answers took " in workplace.run("status").out)
        assert f"{ITEMS - settled} to do" in workplace.run("status").out
        assert workplace.run("plan", "--json", job).code == 0
        items = workplace.run("items", "1", "--json").json["items"]
        assert {item["state"] for item in items} == {"completed", "discarded", "leased"}
        exported = workplace.run("export", "1", "-o", "now.jsonl", "--json")
        assert exported.code == 0
        counts = exported.json["counts"]
        assert counts["completed"] + counts["discarded"] == settled
        assert counts["skipped"] == ITEMS - settled
        assert exported.json["finished"] is False
        lines = (workplace.folder / "now.jsonl").read_bytes().splitlines()
        assert len(lines) == counts["completed"]
        assert not workplace.output.exists()
        assert f", {ITEMS - settled} not settled yet" in workplace.run("export", "1", "-o", "then.csv").out
        retry = workplace.run("retry", "1")
        assert (retry.code, "is being executed" in retry.line) == (4, True)
        server.behave()
        assert running.end().code == 3
    assert len(workplace.outputs()) == 38


@pytest.mark.usefixtures("server")
def test_after_a_kill_status_shows_which_items_wait_for_their_next_attempt(workplace: Workplace) -> None:
    workplace.write_rows([*rows(range(3)), {"id": "slow", "text": "hang"}])
    job = workplace.job(policy="timeout=1.0, backoff=Backoff(first=600.0, cap=600.0)")
    with workplace.start("run", "--quiet", job) as running:
        until(lambda: workplace.count("attempt") >= 1)
        running.kill()
    why = "the last attempt failed (timeout), and its retry is not due yet"
    said = workplace.run("status", "--json").json["waiting"]
    assert " to be asked, not before " in said
    assert said.endswith(why)
    assert f"waiting: {said}" in workplace.run("status").out


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_export_writes_every_format(finished: Workplace, suffix: str) -> None:
    ended = finished.run("export", "talk", "-o", f"copy.{suffix}")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"copy.{suffix}: {ITEMS} items: 38 completed, 2 discarded\n"
    assert (finished.folder / f"copy.{suffix}").stat().st_size > 0
    refused = finished.run("export", "talk", "-o", "copy.doc")
    assert refused.code == 2
    assert "copy.doc" in refused.line


def test_cancel_stops_a_live_run_and_keeps_completed_items(workplace: Workplace, server: InferenceServer) -> None:
    workplace.write_rows(rows(range(ITEMS)))
    job = workplace.job()
    server.behave(hold_after=20)
    with workplace.start("run", "--quiet", job) as running:
        server.wait(lambda stats: stats.requests == 28)
        until(lambda: workplace.count("result") == 20)
        assert "run 1 of talk is cancelled" in workplace.run("cancel", "1").out
        ended = running.end()
    assert ended.code == 4
    assert "run 1 was cancelled with 20 of 40 items done" in ended.line
    server.behave()
    assert workplace.run("status", "--json").json["state"] == "cancelled"
    states = [item["state"] for item in workplace.run("items", "1", "--json").json["items"]]
    assert (states.count("completed"), states.count("cancelled")) == (20, 20)
    assert "had already ended: cancelled" in workplace.run("cancel", "1").out
    assert workplace.run("run", "--quiet", job).code == 0
    assert workplace.run("status", "--json").json["run"] == 2
    assert server.quiet().requests == 28 + 20
    assert len(workplace.outputs()) == ITEMS


# -- retention --------------------------------------------------------------------------------------------------------


def test_prune_deletes_old_runs_and_shrinks_the_file(workplace: Workplace, server: InferenceServer) -> None:
    server.behave(padding=3000)
    workplace.write_rows(rows(range(600)))
    job = workplace.job()
    assert workplace.run("run", "--quiet", job).code == 0
    workplace.write_rows(rows(range(590, 600)))
    assert workplace.run("run", "--quiet", job).code == 0
    full = workplace.ledger.stat().st_size
    assert "0 runs and 0 items deleted" in workplace.run("prune", "--older-than", "1d").out
    workplace.change("UPDATE run SET finished_at = finished_at - 40 * 86400 WHERE id = 1")
    pruned = workplace.run("prune", "--older-than", "30d")
    assert (pruned.code, pruned.out, pruned.err) == (0, "1 runs and 590 items deleted\n", "")
    assert workplace.ledger.stat().st_size < full / 4
    assert [run["run"] for run in workplace.run("runs", "--json").json["runs"]] == [2]
    assert workplace.run("plan", job).out == "0 new, 0 edited, 10 reused, 0 to retry\n"
    assert workplace.query("PRAGMA integrity_check") == [("ok",)]


# -- the output proof -------------------------------------------------------------------------------------------------


def test_the_manifest_proves_the_output(finished: Workplace) -> None:
    manifest = finished.manifest()
    counts = manifest["counts"]
    assert counts == {"inputs": ITEMS, "completed": 38, "discarded": 2, "skipped": 0}
    assert counts["completed"] == len(finished.outputs())
    assert counts["discarded"] == len(finished.failures())
    assert manifest["input"] == {
        "source": str(finished.rows),
        "sha256": hashlib.sha256(finished.rows.read_bytes()).hexdigest(),
    }
    assert manifest["files"].keys() == {"out.jsonl", "out.failures.jsonl"}
    for name, about in manifest["files"].items():
        content = (finished.folder / name).read_bytes()
        assert about == {
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
            "records": content.count(b"\n"),
        }
    assert manifest["finished"] is True
    assert manifest["started_at"] <= manifest["finished_at"] <= manifest["delivered_at"]
    assert manifest["endpoint"]["model"] == finished.url
    assert len(manifest["fingerprint"]) == 64
    finished.run("run", "--quiet", finished.folder / "job.py")
    assert finished.manifest()["fingerprint"] == manifest["fingerprint"]
    assert finished.manifest()["files"] == manifest["files"]  # the same bytes as before


# -- all commands -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [[], *[[command] for command in COMMANDS]])
def test_every_command_has_help(workplace: Workplace, command: list[str]) -> None:
    ended = workplace.run(*command, "--help", db=False)
    assert (ended.code, ended.err) == (0, "")
    assert "Usage" in ended.out
    if not command:
        assert all(f" {name} " in ended.out for name in COMMANDS)
        assert all(f"{code} " in ended.out for code in (0, 1, 2, 3, 4, 130))


def test_the_ledger_is_the_same_one_from_any_folder(workplace: Workplace) -> None:
    workplace.write_rows(rows(range(3)))
    job = workplace.job()
    assert workplace.run("run", "--quiet", job, db=False).code == 0
    made = list(workplace.folder.rglob("ledger.db"))
    assert made == [workplace.folder / ".local/share/orchestrator/ledger.db"]
    other = workplace.ledger
    workplace.make_ledger()
    for setting in (str(other), f"sqlite:///{other}"):
        assert workplace.run("runs", "--json", env={"ORCHESTRATOR_DB": setting}, db=False).json == {"runs": []}
    config = workplace.folder / ".config/orchestrator/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f"db = {str(other)!r}\n")
    assert workplace.run("runs", "--json", db=False).json == {"runs": []}
    config.write_text("")
    assert len(workplace.run("runs", "--json", db=False).json["runs"]) == 1


def test_the_example_config_shows_every_setting_with_its_default() -> None:
    shown = tomllib.loads((ROOT / "config.example.toml").read_text())
    assert shown == TypeAdapter(Settings).dump_python(Settings(), mode="json", exclude_none=True)


def test_verbose_shows_where_a_failure_came_from(workplace: Workplace) -> None:
    workplace.make_ledger()
    ended = workplace.run("-v", "status")
    assert ended.code == 2
    assert "Traceback" in ended.err
    assert ended.err.rstrip().endswith("see `orchestrator runs`")


def test_a_request_may_be_a_function_or_a_dict(workplace: Workplace, server: InferenceServer) -> None:
    workplace.write_rows(rows(range(3)))
    job = workplace.job(prelude="def ask(row):\n    return {'inputs': row['text'].upper()}", request="ask")
    assert workplace.run("run", "--quiet", job).code == 0
    job = workplace.job(request="{'inputs': '{id}: {text}', 'parameters': {'n': 1}}")
    assert workplace.run("run", "--quiet", job).code == 0
    assert server.quiet().asked == {f"TEXT OF {n}" for n in range(3)} | {f"i{n}: text of {n}" for n in range(3)}
    assert orjson.loads(workplace.output.read_bytes().splitlines()[0])["output"]["said"] == answer_to("i0: text of 0")


def test_control_characters_from_outside_do_not_reach_the_terminal(workplace: Workplace) -> None:
    acting = "\x1b]0;owned\x07\x9b2J\u202e"
    workplace.write_rows([{"id": f"a\nrun 9 of talk: finished {acting}", "text": "poison"}, {"id": "b", "text": "x"}])
    job = workplace.job(prelude=f"def parse(answer):\n    raise ValueError({acting + '[red]x[/red]'!r})", parse="parse")
    shown = workplace.run("run", job)
    assert "[red]x[/red]" in shown.err
    commands = (["status"], ["items", "1"], ["report", "1"], ["item", "1", "b"], ["items", "1", "--json"])
    for ended in (shown, *(workplace.run(*command) for command in commands)):
        said = ended.out + ended.err
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", said)
        assert not re.search("^run 9", said, re.MULTILINE)
    assert workplace.failures()[0]["id"] == f"a\nrun 9 of talk: finished {acting}"  # source files are kept exactly
