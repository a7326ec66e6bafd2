"""docs/servers.md: what real servers answered, byte for byte, and what the product makes of it.

`tests/wires/servers/collect.py` asks the servers anew, by hand. The tables of the page are generated:
`python -m tests.wires.test_servers` prints them.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.wires.servers.recording import Record, Recording, Reply, reaction_to, recordings, wire_of

if TYPE_CHECKING:
    from orchestrator.wires import Wire

PAGE = Path(__file__).parents[2] / "docs" / "servers.md"
SHOWN = 240  # characters of a body
HEADER = "| case | asked | answered | we |\n|---|---|---|---|"
ENDED = {"refused": "no connection", "closed": "the connection is closed", "silent": "nothing"}
WORTH_SHOWING = re.compile(r"retry|ratelimit|location|allow", re.IGNORECASE)

RECORDINGS = {name: Recording.read(path) for name, path in recordings().items()}
RECORDS = [
    pytest.param(record, wire_of(record), id=f"{name}: {record.case}, {record.route or record.wire['kind']} {number}")
    for name, recording in RECORDINGS.items()
    for number, record in enumerate(recording.records)
]


@pytest.mark.parametrize(("record", "wire"), RECORDS)
async def test_each_recorded_answer_has_the_reaction_written_beside_it(record: Record, wire: Wire | None) -> None:
    assert await reaction_to(record, wire) == record.reaction


@pytest.mark.parametrize("name", RECORDINGS)
def test_the_page_shows_every_recorded_answer(name: str) -> None:
    assert section(RECORDINGS[name]) in PAGE.read_text(encoding="utf-8")


def code(text: str) -> str:
    """Return a text as code in a cell of a table."""
    fence = "``" if "`" in text else "`"
    space = " " if fence == "``" else ""
    return f"{fence}{space}{text}{space}{fence}".replace("|", "\\|")


def shown(reply: Reply) -> str:
    """Return an answer as it stands in a cell."""
    if reply.status is None:
        return ENDED[reply.body]
    words = [str(reply.status)]
    words += [f"{name}: {value}" for name, value in reply.headers.items() if WORTH_SHOWING.search(name)]
    body = re.sub(r"\s+", " ", reply.body).strip()
    if body:
        words.append(code(body if len(body) <= SHOWN else f"{body[:SHOWN]}..."))
    return " ".join(words)


def section(recording: Recording) -> str:
    """Return the section of a server."""
    packages = ", ".join(f"{name} {number}" for name, number in recording.made_of.items())
    lines = [f"## {recording.server}", "", f"{recording.about} {packages}; {recording.date}.", "", HEADER]
    for one in recording.records:
        asked = f"`GET {one.route}`" if one.route else f"`{one.wire['kind']}`"
        lines.append(f"| {one.case} | {asked} | {shown(one.reply)} | {one.reaction} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write("\n".join(section(recording) for recording in RECORDINGS.values()))
