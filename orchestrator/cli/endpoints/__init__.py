"""orchestrator endpoints: one file per command."""

from __future__ import annotations

import typer

from orchestrator.cli.on_call import add_on_call

endpoints = typer.Typer(
    name="endpoints",
    help="Look at endpoints, and wake, pause or change them by hand.",
    no_args_is_help=True,
    add_completion=False,
)
# In the order in which help shows them, each with the first paragraph of its help.
_COMMANDS = {
    "list.list_": "List the Hugging Face endpoints of a namespace, jobs that are one, and Spaces on paid hardware, "
    "with prices.",
    "hardware.hardware": "List the hardware for Hugging Face endpoints: vendors, regions, instances, prices, quota.",
    "catalog.catalog": "List the models of Hugging Face's Inference Catalog, and the recipes tested for them.",
    "show.show": "Show an endpoint: its state, hardware, price, current users, and cost this month.",
    "check.check": "Send an endpoint one request, and report on every step. Wakes nothing without --wake.",
    "bench.bench": "Load an endpoint for a while, and measure latency, throughput and cost. It is woken and paused as "
    "by a run.",
    "create.create": "Create a Hugging Face endpoint. It starts at once, and costs money until it is paused or scaled "
    "to zero.",
    "deploy.deploy": "Create a Hugging Face endpoint from the Inference Catalog. It starts at once, as with `create`.",
    "update.update": "Change the given settings of a Hugging Face endpoint. A running endpoint is restarted with them.",
    "resume.resume": "Wake an endpoint. It stays awake until you pause it, or until its scale-to-zero timer expires.",
    "wait.wait": "Wait until a starting endpoint answers. Wakes nothing: see `endpoints resume --wait`.",
    "pause.pause": "Pause an endpoint and confirm it. This also settles a pause that a dead run still owes.",
    "scale_to_zero.scale_to_zero": "Scale a Hugging Face endpoint to zero: it costs nothing, and the next request "
    "wakes it.",
    "delete.delete": "Delete a Hugging Face endpoint. Asks for its name as confirmation.",
    "logs.logs": "Print the log of an endpoint at Hugging Face or SageMaker, of jobs, a Space, or a server here.",
    "metrics.metrics": "Print the metrics of a Hugging Face endpoint, of jobs, or of a Space, as OpenMetrics text.",
}
add_on_call(endpoints, "orchestrator.cli.endpoints", _COMMANDS)
