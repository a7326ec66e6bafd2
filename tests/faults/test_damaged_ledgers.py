"""Every command reports a damaged ledger as damaged, in one line, whatever the damage."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from orchestrator.cli.app import app
from orchestrator.store.migrate import HEAD
from tests.commands import rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.commands import Workplace

COMMANDS = (["status"], ["items", "1"], ["report"], ["doctor"])


@pytest.fixture
def ledger(workplace: Workplace) -> Path:
    """Create a ledger with a finished run and no write-ahead log beside it."""
    workplace.write_rows(rows(range(30)))
    assert workplace.run("run", workplace.job()).code == 0
    assert workplace.run("compact").code == 0
    return workplace.ledger


def other_text(content: bytes, written: bytes, instead: bytes) -> bytes:
    assert written in content
    return content.replace(written, instead)


def noise(content: bytes) -> bytes:
    return content[:100] + random.Random(1).randbytes(len(content) - 100)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "the schema is no text": lambda content: other_text(content, b"CREATE TABLE item", b"CREATE TABLE \xff\xfeem"),
    "values are no text": lambda content: other_text(content, b'{"said":', b'{"\xff\xfeid":'),
    "values are no JSON": lambda content: other_text(content, b'"jobfile":', b'"jobfile" '),
    "a column has another name": lambda content: other_text(content, b"finished_at REAL", b"finiShed_at REAL"),
    "the end is missing": lambda content: content[: len(content) // 2],
    "pages are empty": lambda content: content[:16384] + bytes(8192 * 6) + content[8192 * 8 :],
    "everything but the header is noise": noise,
    "it is of a newer program": lambda content: other_text(content, HEAD.encode(), b"9999"),
    "it is something else": lambda content: b"\x89PNG" + content[4:],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_ledger_is_reported_in_one_line(ledger: Path, damage: str) -> None:
    content = DAMAGES[damage](ledger.read_bytes())
    codes = set()
    for command in COMMANDS:
        for left in ledger.parent.glob("ledger.db*"):
            left.unlink() if left.is_file() else None
        ledger.write_bytes(content)
        ended = CliRunner().invoke(app, ["--db", str(ledger), *command])
        assert ended.exception is None or isinstance(ended.exception, SystemExit), command
        codes.add(int(ended.exit_code))
        if ended.exit_code == 2:
            (line,) = ended.stderr.splitlines()
            assert str(ledger) in line, command
    assert 2 in codes
    assert codes <= {0, 1, 2}  # commands that the damage does not affect, and what `doctor` finds
