"""Every command reports a damaged ledger as damaged, in one line, whatever the damage."""

from __future__ import annotations

import os
import random
import sqlite3
from collections import Counter
from contextlib import closing
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


def swapped(content: bytes, *tables: str) -> bytes:
    """Return the ledger with the first pages of two tables exchanged."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(content[:18] + b"\1\1" + content[20:])  # one in memory has no write-ahead log
        find = "SELECT rootpage FROM sqlite_master WHERE type = 'table' AND name = ?"
        (one,), (other,) = (connection.execute(find, [table]).fetchone() for table in tables)
    return _swapped(content, one, other)


def _swapped(content: bytes, one: int, other: int) -> bytes:
    page = int.from_bytes(content[16:18], "big")
    pages = [content[at : at + page] for at in range(0, len(content), page)]
    pages[one - 1], pages[other - 1] = pages[other - 1], pages[one - 1]
    return b"".join(pages)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "the schema is no text": lambda content: other_text(content, b"CREATE TABLE item", b"CREATE TABLE \xff\xfeem"),
    "values are no text": lambda content: other_text(content, b'{"said":', b'{"\xff\xfeid":'),
    "values are no JSON": lambda content: other_text(content, b'"jobfile":', b'"jobfile" '),
    "a column has another name": lambda content: other_text(content, b"finished_at REAL", b"finiShed_at REAL"),
    "the end is missing": lambda content: content[: len(content) // 2],
    "pages are empty": lambda content: content[:16384] + bytes(8192 * 6) + content[8192 * 8 :],
    "everything but the header is noise": noise,
    "its report cannot be shown": lambda content: swapped(content, "awake_window", "item"),
    "it is of a newer program": lambda content: other_text(content, HEAD.encode(), b"9999"),
    "it is something else": lambda content: b"\x89PNG" + content[4:],
}


def at_random(content: bytes, seed: int) -> bytes:
    """Return the ledger with a few changed bytes, an empty page, pages swapped, or without its end."""
    rng, changed = random.Random(seed), bytearray(content)
    page = int.from_bytes(content[16:18], "big")
    match rng.randrange(4):
        case 0:
            for _ in range(rng.choice((1, 1, 8, 200))):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
        case 1:
            first = rng.randrange(len(content) // page) * page
            changed[first : first + page] = bytes(page)
        case 2:
            return _swapped(content, *(rng.randrange(1, len(content) // page) + 1 for _ in range(2)))
        case 3:
            del changed[rng.randrange(100, len(changed)) :]
    return bytes(changed)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_ledger_is_reported_in_one_line(ledger: Path, damage: str) -> None:
    assert 2 in codes_of(ledger, DAMAGES[damage](ledger.read_bytes()))


def test_no_damage_at_random_is_a_traceback(ledger: Path) -> None:
    """DAMAGED_LEDGERS=2000 tries more of them by hand."""
    sound = ledger.read_bytes()
    found = Counter[int]()
    for seed in range(int(os.environ.get("DAMAGED_LEDGERS", "10"))):
        found.update(codes_of(ledger, at_random(sound, seed)))
    print(f"commands by exit code: {dict(found)}")  # noqa: T201 - what a try by hand shows


def codes_of(ledger: Path, content: bytes) -> set[int]:
    """Return the exit codes of the commands with such a ledger; each failure is one line that names it."""
    codes = set()
    for command in COMMANDS:
        for left in ledger.parent.glob("ledger.db*"):
            left.unlink() if left.is_file() else None
        ledger.write_bytes(content)
        ended = CliRunner().invoke(app, ["--db", str(ledger), *command])
        assert ended.exception is None or isinstance(ended.exception, SystemExit), (command, ended.exception)
        codes.add(int(ended.exit_code))
        if ended.exit_code == 2:
            (line,) = ended.stderr.splitlines()
            assert str(ledger) in line, command
    assert codes <= {0, 1, 2}  # commands that the damage does not affect, and what `doctor` finds
    return codes
