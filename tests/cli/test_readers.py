"""A command has the same exit code and does the same work if the reader of its output goes away."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.commands import COMMAND

if TYPE_CHECKING:
    from tests.commands import Workplace


def code_unread(workplace: Workplace, *words: object, to: int | None = None) -> int:
    """Return the exit code of a command whose output is not read, or goes to this descriptor."""
    read, write = os.pipe()
    os.close(read)
    try:
        unread = write if to is None else to
        command = [*COMMAND, "--db", str(workplace.ledger), *map(str, words)]
        ended = subprocess.run(
            command, cwd=workplace.folder, env=workplace.environment(), check=False, stdout=unread, stderr=unread
        )
        return ended.returncode
    finally:
        os.close(write)


def test_a_run_delivers_and_ends_normally_if_nothing_reads_its_output(workplace: Workplace) -> None:
    job = workplace.job()
    workplace.write_rows([{"id": "1", "text": "poison"}, {"id": "2", "text": "fine"}])
    assert code_unread(workplace, "run", job) == 3
    assert [output["id"] for output in workplace.outputs()] == ["2"]


def test_every_command_ends_normally_if_nothing_reads_its_output(workplace: Workplace) -> None:
    workplace.make_ledger()
    for code, words in (
        (0, ("--help",)),
        (0, ("runs", "--json")),
        (0, ("report",)),
        (2, ("status", "77")),
    ):
        assert code_unread(workplace, *words) == code, words


def test_a_run_ends_normally_if_its_standard_streams_are_closed(workplace: Workplace) -> None:
    """No file may get their numbers: what closes such a file aborts the process, or prints into the ledger."""
    workplace.write_rows([{"id": "1", "text": "a"}])
    command = [*COMMAND, "--db", str(workplace.ledger), "run", str(workplace.job())]
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command]
    ended = subprocess.run(closed, cwd=workplace.folder, env=workplace.environment(), check=False)
    assert (ended.returncode, len(workplace.outputs())) == (0, 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_log_on_a_full_disk_does_not_stop_the_run(workplace: Workplace) -> None:
    workplace.write_rows([{"id": "1", "text": "a"}])
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        assert code_unread(workplace, "run", workplace.job(), to=full) == 0
    finally:
        os.close(full)
