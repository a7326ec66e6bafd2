"""The tables of docs/servers.md, from the recorded answers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.wires.servers.recording import Recording, Reply

PAGE = Path(__file__).parents[3] / "docs" / "servers.md"
BEGIN = "<!-- The rest of this page is written by: python -m tests.wires.servers.collect --page -->\n"
_SHOWN = 240  # characters of a body
_HEADER = "| case | asked | answered | we |\n|---|---|---|---|"
_ENDED = {"refused": "no connection", "closed": "the connection is closed", "silent": "nothing"}
_WORTH_SHOWING = re.compile(r"retry|ratelimit|location|allow", re.IGNORECASE)


def with_tables(page: str, recordings: Iterable[Recording]) -> str:
    """Return the page with the tables of these servers in place of those that it has."""
    head, begin, _ = page.partition(BEGIN)
    if not begin:
        raise ValueError(f"{PAGE} lacks the line {BEGIN!r}")
    return "\n".join([head + begin, *(_section(recording) for recording in recordings)])


def _code(text: str) -> str:
    """Return a text as code in a cell of a table."""
    fence = "``" if "`" in text else "`"
    space = " " if fence == "``" else ""
    return f"{fence}{space}{text}{space}{fence}".replace("|", "\\|")


def _shown(reply: Reply) -> str:
    """Return an answer as it stands in a cell."""
    if reply.status is None:
        return _ENDED[reply.body]
    words = [str(reply.status)]
    words += [f"{name}: {value}" for name, value in reply.headers.items() if _WORTH_SHOWING.search(name)]
    kind = reply.headers.get("Content-Type", "no Content-Type").partition(";")[0]
    if reply.body and kind != "application/json":
        words.append(kind)
    body = re.sub(r"\s+", " ", reply.body).strip()
    if body:
        words.append(_code(body if len(body) <= _SHOWN else f"{body[:_SHOWN]}..."))
    return " ".join(words)


def _section(recording: Recording) -> str:
    """Return the section of a server."""
    packages = ", ".join(f"{name} {number}" for name, number in recording.made_of.items())
    names = sorted({one.reply.headers["Server"] for one in recording.records if "Server" in one.reply.headers})
    headers = f" Header `Server`: {', '.join(map(_code, names))}." if names else ""
    about = f"{recording.about} {packages}; {recording.date}.{headers}"
    lines = [f"## {recording.server}", "", about, "", _HEADER]
    for one in recording.records:
        asked = f"`GET {one.route}`" if one.route else f"`{one.wire['kind']}`"
        lines.append(f"| {one.case} | {asked} | {_shown(one.reply)} | {one.reaction} |")
    return "\n".join(lines) + "\n"
