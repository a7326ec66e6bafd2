"""orchestrator endpoints scale-to-zero: scale an endpoint to zero until the next request."""

from __future__ import annotations

import typer

from orchestrator.app.endpoints import ending
from orchestrator.cli.command import print_json
from orchestrator.cli.endpoints.pause import Force
from orchestrator.cli.endpoints.which import Name, Namespace, read_as, with_endpoint
from orchestrator.cli.options import AsJson
from orchestrator.cli.terminal import say


def scale_to_zero(
    context: typer.Context, name: Name, namespace: Namespace = None, force: Force = False, json: AsJson = False
) -> None:
    """Scale a Hugging Face endpoint to zero: it costs nothing, and the next request wakes it."""
    known, state = with_endpoint(
        context, name, namespace, lambda one, app: ending.scale_to_zero(one, app.store, force=force), json=json
    )
    if json:
        print_json({"endpoint": known, "state": state})
    else:
        say(read_as(known, state))
