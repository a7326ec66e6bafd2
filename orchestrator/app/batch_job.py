"""The job of a batch: which endpoints serve its model, and how its lines are asked.

This module makes the `Job` of a batch: its endpoints are all whose `[endpoints.NAME] models` have the model,
each with `OpenAIBatchWire`, which passes bodies through whole; an item is a line, and its id the `custom_id`.
`app/batch_validation.py` reads a whole file as a stream, in a process of its own unless it is small, and
`domain/batch_lines.py` decides what is wrong with a line. Whatever it accepts, `JsonlSource` reads as one item.
`domain/batch_output.py` makes output and error lines, in which bodies are as their servers wrote them, and sums their
usage. With `policy.keep_error_bodies`, the data plane puts the body of an error response into its failure, without
secrets, and the ledger keeps it (`attempt.body`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.domain.errors import UsageError
from orchestrator.domain.policy import Policy
from orchestrator.endpoints.named import declared
from orchestrator.job import Job
from orchestrator.sources import JsonlSource

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.config import Settings
    from orchestrator.domain.batch_lines import Route


def batch_job(
    settings: Settings,
    *,
    name: str,
    path: Path,
    route: Route,
    model: str,
    max_cost: float | None = None,
) -> Job:
    """Return the job that asks the lines of a validated batch file. An item is a line, and its id the `custom_id`.

    Every endpoint whose `models` has the model takes part. Each body is sent as it is and gets an answer of its own,
    even if it is the same as another one. Requests that are rejected for what is in them do not stop the run, since
    the author of the file is told about each of them.
    Blocking, since kinds of endpoint may look at files. Raises `UsageError` if no endpoint serves the model, or one
    that does is not valid.
    """
    names = settings.served_models.get(model, ())
    if not names:
        raise UsageError(f"no endpoint serves the model {model!r}: add it to [endpoints.NAME] models in the settings")
    wire = {"kind": "openai-batch", "route": route, "model": model}
    policy = Policy(
        dedupe=False,
        breaker_on_rejected=False,
        max_error_rate=1.0,
        keep_error_bodies=True,
        max_cost=max_cost,
    )
    endpoints = [declared(one, settings.endpoints[one], wire) for one in names]
    source = JsonlSource(path, id="custom_id")
    try:
        return Job(name, source, endpoints, request="{body}", policy=policy)
    except ValueError as error:
        raise UsageError(f"model {model!r}: {error}") from error
