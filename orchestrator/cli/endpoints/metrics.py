"""orchestrator endpoints metrics: print a Hugging Face endpoint's metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from orchestrator.app.endpoints.lookup import managed_by_hugging_face, management
from orchestrator.cli.endpoints.which import Name, Namespace, with_endpoint
from orchestrator.cli.terminal import say_fields

if TYPE_CHECKING:
    from orchestrator.app import App
    from orchestrator.ports import Endpoint


def metrics(context: typer.Context, name: Name, namespace: Namespace = None) -> None:
    """Print the metrics of a Hugging Face endpoint, as OpenMetrics text."""
    for line in with_endpoint(context, name, namespace, _metrics).splitlines():
        say_fields(line)


async def _metrics(endpoint: Endpoint, _app: App) -> str:
    async with management(managed_by_hugging_face(endpoint, "metrics")) as (api, name):
        return await api.open_metrics(name)
