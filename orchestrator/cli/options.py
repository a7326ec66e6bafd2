"""Arguments and options that several commands take."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typer._click.core import Context

_MOST = 2**63  # SQLite's whole numbers are smaller
_NUMBER = re.compile(r"[-+]?[\d.,]+\w?")  # or what was meant as one
_USUAL = {"--canary": "32"}  # values of options that may stand without one

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
        min=1, max=100_000, help="First ask N items (32 if left out), spread over the lengths.", metavar="[N]"
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


class Command(TyperCommand):
    """A command that knows the options whose number may be left out, which typer has no name for."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Parse the arguments, with the usual number after an option that has none."""
        known = {name for parameter in self.params for name in parameter.opts}
        usual = {name: number for name, number in _USUAL.items() if name in known}
        return super().parse_args(ctx, [*_with_numbers(args, usual)])


def _with_numbers(args: Sequence[str], usual: dict[str, str]) -> Iterator[str]:
    """Yield the arguments; after an option of `usual` that is last, or before what is no number, the usual one."""
    for place, argument in enumerate(args):
        yield argument
        if argument in usual and not any(map(_NUMBER.fullmatch, args[place + 1 : place + 2])):
            yield usual[argument]


def priority_of(text: str) -> int:
    """Parse a priority that fits in the ledger. typer's `min` and `max` would do, but would appear in the help."""
    try:
        number = int(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a whole number") from error
    if not -_MOST <= number < _MOST:
        raise typer.BadParameter(f"{text} does not fit in 64 bits")
    return number
