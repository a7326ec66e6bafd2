"""orchestrator endpoints metrics: print the metrics of a Hugging Face endpoint or of its jobs."""

from __future__ import annotations

import typer

from orchestrator.app.endpoints.logs import metrics_of
from orchestrator.cli.endpoints.which import Name, Namespace, with_endpoint
from orchestrator.cli.terminal import say_fields


def metrics(context: typer.Context, name: Name, namespace: Namespace = None) -> None:
    """Print the metrics of a Hugging Face endpoint, of jobs, or of a Space, as OpenMetrics text."""
    for line in with_endpoint(context, name, namespace, lambda endpoint, _app: metrics_of(endpoint)).splitlines():
        say_fields(line)
