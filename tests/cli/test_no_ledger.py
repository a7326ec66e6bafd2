"""Commands that only read report a missing ledger and do not create one, because --db may be mistyped."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.commands import Workplace

LOOKS = [
    "backup copy.db",
    "cancel 1",
    "compact",
    "costs",
    "export 1 -o x.jsonl",
    "go 1",
    "hold 1",
    "item 1 i1",
    "items 1",
    "prioritize 1 3",
    "prune --older-than 30d",
    "queue",
    "report",
    "retry 1",
    "runs",
    "schedule fire talk",
    "schedule list",
    "schedule next talk",
    "schedule pause talk",
    "schedule remove talk",
    "schedule resume talk",
    "status",
    "sweep",
    "sweep --dry-run",
    "tune 1 concurrency=3",
]


@pytest.mark.parametrize("command", LOOKS)
def test_a_command_that_needs_a_ledger_does_not_create_one(workplace: Workplace, command: str) -> None:
    workplace.ledger = workplace.folder / "mistyped" / "ledger.db"
    ended = workplace.run(*command.split())
    assert ended.code == 2
    assert f"there is no ledger {workplace.ledger}" in ended.line
    assert not workplace.ledger.parent.exists()


def test_a_sweep_without_a_ledger_names_the_guards_that_are_still_trying(workplace: Workplace) -> None:
    watch = workplace.folder / "watch.py"
    watch.write_text("input()")
    with subprocess.Popen([sys.executable, str(watch)], stdin=subprocess.PIPE) as guard:
        trace = workplace.ledger.with_name(f"{workplace.ledger.name}.guard-{guard.pid}")
        trace.write_text('{"endpoint": "big", "opened_at": 1.0}\nthe provider is silent\n')
        workplace.ledger.unlink(missing_ok=True)
        ended = workplace.run("sweep")
        guard.communicate(b"\n")
    assert ended.code == 2
    assert ended.line.endswith(f"guards are still trying to pause big (guard {guard.pid}: the provider is silent)")


def test_a_sweep_without_a_ledger_says_what_to_do(workplace: Workplace) -> None:
    workplace.ledger.unlink(missing_ok=True)
    ended = workplace.run("sweep")
    assert ended.code == 2
    assert "no guard has left a debt" in ended.line
    assert "endpoints list" in ended.line


def test_an_empty_file_is_not_a_ledger_and_stays_empty(workplace: Workplace) -> None:
    workplace.ledger.touch()
    ended = workplace.run("runs")
    assert (ended.code, "there is no ledger" in ended.line) == (2, True)
    assert workplace.ledger.read_bytes() == b""


def test_a_first_plan_neither_needs_nor_creates_a_ledger(workplace: Workplace) -> None:
    workplace.ledger = workplace.folder / "new" / "ledger.db"
    workplace.write_rows([{"id": "1", "text": "one"}])
    assert workplace.run("plan", workplace.job()).out.startswith("1 new, 0 edited, 0 reused, 0 to retry\n")
    assert not workplace.ledger.parent.exists()


def test_doctor_reports_that_there_is_no_ledger(workplace: Workplace) -> None:
    ended = workplace.run("doctor", "--offline")
    assert "none yet" in ended.out
    assert not workplace.ledger.exists()
