"""orchestrator prune: delete old runs and give the space back."""

from __future__ import annotations

import re
import time
from functools import partial
from typing import Annotated

import typer

from orchestrator.cli.command import with_store
from orchestrator.store.prune import prune as prune_store

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def prune(
    context: typer.Context,
    older_than: Annotated[str, typer.Option(help="Runs that ended longer ago than this: 12h, 30d, 8w.", metavar="AGE")],
) -> None:
    """Delete runs that ended long ago, with the answers that no other run holds, and give the space back."""
    moment = time.time() - seconds_in(older_than)
    runs, items = with_store(context, partial(prune_store, moment=moment))
    typer.echo(f"{runs:,} runs and {items:,} items deleted")


def seconds_in(age: str) -> float:
    """Seconds in `30d` and the like; a usage error for anything else."""
    found = re.fullmatch(r"(\d+)([smhdw])", age.strip())
    if found is None:
        raise typer.BadParameter(f"{age!r} is not an age such as 12h, 30d or 8w", param_hint="--older-than")
    return int(found[1]) * _UNITS[found[2]]
