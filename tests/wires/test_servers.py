"""docs/servers.md: what real servers answered, byte for byte, and what the product makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.wires.servers.page import PAGE, with_tables
from tests.wires.servers.recording import Record, Recording, reaction_to, recordings, wire_of

if TYPE_CHECKING:
    from orchestrator.wires import Wire

RECORDINGS = {name: Recording.read(path) for name, path in recordings().items()}
RECORDS = [
    pytest.param(record, wire_of(record), id=f"{name}: {record.case}, {record.route or record.wire['kind']} {number}")
    for name, recording in RECORDINGS.items()
    for number, record in enumerate(recording.records)
]


@pytest.mark.parametrize(("record", "wire"), RECORDS)
async def test_each_recorded_answer_has_the_reaction_written_beside_it(record: Record, wire: Wire | None) -> None:
    assert await reaction_to(record, wire) == record.reaction


def test_the_page_shows_every_recorded_answer() -> None:
    page = PAGE.read_text(encoding="utf-8")
    remedy = "write it with: python -m tests.wires.servers.collect --page"
    assert page == with_tables(page, RECORDINGS.values()), remedy
