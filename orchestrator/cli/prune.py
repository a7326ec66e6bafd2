"""orchestrator prune: delete old runs and free their space."""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated

import typer

from orchestrator.cli.command import with_store
from orchestrator.cli.terminal import say
from orchestrator.domain.moment import seconds_of
from orchestrator.store.prune import prune as prune_store


def prune(
    context: typer.Context,
    older_than: Annotated[
        str, typer.Option(help="Delete runs that ended longer ago than this: 12h, 30d, 8w.", metavar="AGE")
    ],
) -> None:
    """Delete runs that ended long ago, with the answers that no other run needs, and free their space."""
    try:
        moment = time.time() - seconds_of(older_than)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--older-than") from error
    runs, items = with_store(context, partial(prune_store, moment=moment))
    say(f"{runs:,} runs and {items:,} items deleted")
