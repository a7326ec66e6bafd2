"""Asks the real servers anew, by hand: `python -m tests.wires.servers.collect NAME ...` (without names: lists them).

It installs a server if it is not there, starts it on the loopback interface, asks it every case and looks at its routes
while it loads, works, is overloaded, ends and is killed, and writes `recorded/NAME.json`. The reactions to cases that
were there before are kept; for new ones a person writes them. Then `--page` instead of names writes the tables of
docs/servers.md.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tests.wires.servers.models import write_models
from tests.wires.servers.page import PAGE, with_tables
from tests.wires.servers.programs import PROGRAMS
from tests.wires.servers.recording import FOLDER, Recording, recordings
from tests.wires.servers.scenarios import SCENARIOS
from tests.wires.servers.watching import normal

if TYPE_CHECKING:
    from collections.abc import Sequence


def collect(name: str) -> None:
    """Write the file of a server anew, with the reactions that it had."""
    scenario, program = SCENARIOS[name], PROGRAMS[SCENARIOS[name].program]
    program.install()
    write_models()
    known = recordings().get(name)
    reactions = {one.key: one.reaction for one in Recording.read(known).records} if known else {}
    records = [replace(one, reaction=reactions.get(one.key, "")) for one in scenario.records(program)]
    command = normal(" ".join(program.words(8000, "http://127.0.0.1:8001")))
    today = datetime.now(UTC).date().isoformat()
    made_of = {**scenario.made_of(), **program.made_of}
    Recording(scenario.server, made_of, command, today, scenario.about, records).write(FOLDER / f"{name}.json")


def main(names: Sequence[str]) -> None:
    """Collect what the servers of these names answer, write the page, or list the names."""
    if not names:
        sys.stdout.write("\n".join(SCENARIOS) + "\n")
    for name in names:
        if name == "--page":
            write_page()
        else:
            collect(name)


def write_page() -> None:
    """Write the tables of docs/servers.md."""
    found = [Recording.read(path) for path in recordings().values()]
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
