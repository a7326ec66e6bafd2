"""Arguments and options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_MOST = 2**63  # SQLite's whole numbers are smaller

JobFile = Annotated[
    Path, typer.Argument(help="A Python file that defines one Job, or a job spec in JSON.", metavar="JOBFILE")
]
Limit = Annotated[int | None, typer.Option(min=1, max=2**32, help="Only the first N rows of the source.", metavar="N")]
Reuse = Annotated[
    list[str] | None,
    typer.Option("--reuse", help="Reuse the answers of another job; repeatable.", metavar="JOB"),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a setting of the job, for example policy.concurrency=8.", metavar="KEY=VALUE"),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace existing files even if this job has not written them.")
]
Canary = Annotated[
    int | None,
    typer.Option(
        min=1, max=100_000, help="First ask N items (64, say), spread over the lengths of requests.", metavar="N"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else, to stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing unless something is wrong.")]
ThisRun = Annotated[str, typer.Argument(help="A run's number, or a job's name for its latest run.", metavar="RUN")]
SomeRun = Annotated[
    str | None, typer.Argument(help="A run's number, or a job's name for its latest run.", metavar="[RUN]")
]
Follow = Annotated[bool, typer.Option("-f", "--follow", help="Keep printing new lines as they are written.")]
Tail = Annotated[int | None, typer.Option("--tail", min=0, help="Only the last N lines.", metavar="N")]


def priority_of(text: str) -> int:
    """Parse a priority that fits in the ledger. typer's `min` and `max` would do, but would appear in the help."""
    try:
        number = int(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a whole number") from error
    if not -_MOST <= number < _MOST:
        raise typer.BadParameter(f"{text} does not fit in 64 bits")
    return number
