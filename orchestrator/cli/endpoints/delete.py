"""orchestrator endpoints delete: delete a Hugging Face endpoint for good."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from orchestrator.app.endpoints import ending
from orchestrator.cli.command import fail, print_json
from orchestrator.cli.endpoints.list import hardware_words
from orchestrator.cli.endpoints.which import Name, Namespace, with_endpoint
from orchestrator.cli.options import AsJson
from orchestrator.cli.terminal import say
from orchestrator.domain.errors import UsageError

Yes = Annotated[
    str | None, typer.Option("--yes-delete", help="For scripts: confirm with the endpoint's name.", metavar="NAME")
]


def delete(
    context: typer.Context, name: Name, namespace: Namespace = None, yes_delete: Yes = None, json: AsJson = False
) -> None:
    """Delete a Hugging Face endpoint. Asks for its name as confirmation."""
    known, found = with_endpoint(context, name, namespace, lambda one, app: ending.deletable(one, app.store), json=json)
    words = f"{found.repository} on {hardware_words(found.hardware)}, {found.state}"
    typed = (
        yes_delete
        if yes_delete is not None
        else _typed(f"{known} ({words}) will be deleted for good. Type its name to confirm")
    )
    if typed not in {known, known.rpartition("/")[2]}:
        fail(UsageError(f"nothing was deleted: {typed!r} is not {known!r}; scripts can use --yes-delete"), json=json)
    with_endpoint(context, name, namespace, lambda one, app: ending.delete(one, app.store), json=json)
    if json:
        print_json({"endpoint": known, "deleted": True})
    else:
        say(f"endpoint {known} is deleted")


def _typed(question: str) -> str:
    """Ask on the terminal and return the answer; "" at the end of input."""
    sys.stderr.write(f"{question}: ")
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        sys.stderr.write("\n")
    return line.strip()
