"""orchestrator export: write a run's current results to a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.command import print_json, with_app
from orchestrator.cli.options import AsJson, Overwrite, ThisRun
from orchestrator.cli.show import kept_words
from orchestrator.cli.terminal import say
from orchestrator.domain.location import target_of
from orchestrator.domain.phrases import count

if TYPE_CHECKING:
    from collections.abc import Mapping


def export(
    context: typer.Context,
    run: ThisRun,
    output: Annotated[
        str,
        typer.Option("-o", "--output", help="The file or location to write: .jsonl, .csv or .parquet.", metavar="FILE"),
    ],
    overwrite: Overwrite = False,
    json: AsJson = False,
) -> None:
    """Write a run's current results to a file, even while it runs."""
    manifest = with_app(context, lambda app: app.export(run, output, overwrite=overwrite), json=json)
    if json:
        print_json(manifest)
    else:
        counts = manifest["counts"]
        assert isinstance(counts, dict)
        for line in [f"{target_of(output)}: {_counted(counts)}", *kept_words(manifest)]:
            say(line)


def _counted(counts: Mapping[str, int]) -> str:
    """Return for example `600 items: 512 completed, 3 discarded, 85 not settled yet`."""
    settled = f"{count(counts['inputs'], 'item')}: {counts['completed']:,} completed, {counts['discarded']:,} discarded"
    return f"{settled}, {counts['skipped']:,} not settled yet" if counts["skipped"] else settled
