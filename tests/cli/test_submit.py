"""What is submitted waits for what its job and its options say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.commands import Workplace

AFTER = "), after='prepare', after_end=('tidy',"  # more arguments of the job


def waits(workplace: Workplace) -> list[tuple[Any, ...]]:
    return workplace.query("SELECT run_id, for_run, any_end FROM wait ORDER BY run_id, for_run")


def test_options_add_to_what_the_job_file_says_and_of_two_sayings_the_stricter_one_counts(workplace: Workplace) -> None:
    for name in ("prepare", "tidy", "other"):
        assert workplace.run("submit", workplace.job(f"{name}.py", name=repr(name))).code == 0
    talk = workplace.job(policy=AFTER)
    assert workplace.run("submit", talk).code == 0
    assert waits(workplace) == [(4, 1, 0), (4, 2, 1)]
    assert workplace.run("submit", talk, "--after-end", "other", "--after", "2", "--after-end", "prepare").code == 0
    assert waits(workplace)[2:] == [(5, 1, 0), (5, 2, 0), (5, 3, 1)]


def test_a_job_that_waits_for_one_without_a_run_is_not_submitted(workplace: Workplace) -> None:
    refused = workplace.run("submit", workplace.job(policy=AFTER))
    assert (refused.code, "no run 'prepare' in ledger" in refused.line) == (2, True)
    assert workplace.count("run") == 0
