"""A submitted run waits for the runs that its job and its options name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.commands import Workplace

AFTER = "), after='prepare', after_end=('tidy',"  # more arguments of the job


def waits(workplace: Workplace) -> list[tuple[Any, ...]]:
    return workplace.query("SELECT run_id, for_run, any_end FROM wait ORDER BY run_id, for_run")


def test_options_add_to_the_job_file_and_the_stricter_value_counts(workplace: Workplace) -> None:
    for name in ("prepare", "tidy", "other"):
        assert workplace.run("submit", workplace.job(f"{name}.py", name=repr(name))).code == 0
    talk = workplace.job(policy=AFTER)
    assert workplace.run("submit", talk).code == 0
    assert waits(workplace) == [(4, 1, 0), (4, 2, 1)]
    assert workplace.run("submit", talk, "--after-end", "other", "--after", "2", "--after-end", "prepare").code == 0
    assert waits(workplace)[2:] == [(5, 1, 0), (5, 2, 0), (5, 3, 1)]


def test_a_job_that_depends_on_a_job_without_a_run_is_not_submitted(workplace: Workplace) -> None:
    refused = workplace.run("submit", workplace.job(policy=AFTER))
    assert (refused.code, "no run 'prepare' in ledger" in refused.line) == (2, True)
    assert workplace.count("run") == 0


def test_a_date_out_of_range_is_refused_and_one_in_an_old_ledger_breaks_no_display(workplace: Workplace) -> None:
    workplace.write_rows([{"id": "1", "text": "a"}])
    job = workplace.job()
    refused = workplace.run("submit", job, "--at", "+999999999d")
    assert (refused.code, "is out of range" in refused.err, "Traceback" in refused.err) == (2, True, False)
    assert workplace.run("submit", job).code == 0
    workplace.change("UPDATE run SET due_at = 8.6e13, deadline = 1e300, created_at = -1e300")
    for command in ("queue", "report", "runs", "status", "doctor"):
        ended = workplace.run(command)
        assert "Traceback" not in ended.err, command
    assert "due 9999-12-3" in workplace.run("queue").out


def test_a_key_can_be_reused_if_its_run_failed_or_was_cancelled_and_otherwise_shows_the_state(
    workplace: Workplace,
) -> None:
    job = workplace.job()
    assert workplace.run("submit", job, "--key", "k").code == 0
    again = workplace.run("submit", job, "--key", "k")
    assert (again.code, again.out) == (0, "run 1 of talk has that key already: it is queued\n")
    for number, ended in enumerate(["failed", "cancelled", "stopped"], start=1):
        moment = "created_at" if ended == "cancelled" else "NULL"
        change = f"UPDATE run SET state = ?, due_at = NULL, finished_at = {moment} WHERE id = ?"
        workplace.change(change, [ended, number])
        job.write_text(f"{job.read_text()}\n# mended\n")  # a failed run is rarely submitted again unchanged
        assert workplace.run("submit", job, "--key", "k").out == f"run {number + 1} of talk is queued\n"
    workplace.change("UPDATE run SET state = 'finished', due_at = NULL, finished_at = 1, delivered_at = 1 WHERE id = 4")
    assert workplace.run("submit", job, "--key", "k").out == "run 4 of talk has that key already: it is finished\n"


def test_priorities_may_be_negative_but_must_fit_the_ledger(workplace: Workplace) -> None:
    job = workplace.job()
    assert workplace.run("submit", job, "--priority", "-3").code == 0
    assert workplace.run("prioritize", "1", "-5").code == 0
    assert workplace.query("SELECT priority FROM run") == [(-5,)]
    for refused in (
        workplace.run("submit", job, "--priority", str(2**63)),
        workplace.run("prioritize", "1", str(-(2**63) - 1)),
        workplace.run("prioritize", "1", "-x"),
        workplace.run("status", str(2**70)),
        workplace.run("tune", "1", f"concurrency={2**70}"),
        workplace.run("submit", job, "--limit", str(2**70)),
    ):
        assert (refused.code, "Traceback" in refused.err) == (2, False)
