"""What a worker on this machine and the process that started it tell each other."""

from __future__ import annotations

from dataclasses import dataclass

CANNOT_SERVE = "cannot serve: "  # begins the worker's last line if there will be no model
SERVING = "serving on "  # begins its first line: the URL
HANDLER_TOKEN_ENV = "ORCHESTRATOR_HANDLER_TOKEN"


@dataclass(frozen=True, slots=True)
class Vitals:
    """One look at one worker. Memory in bytes; `busy` and `items_per_second` are over the last ten seconds.

    `parent`, `parent_started`: the process of the run, as the ledger knows it. `device_memory`: what the worker has of
    its accelerator, `device_total` what that has in all; None on the CPU. `budget`: padded tokens in one call of the
    model, None for a handler.
    """

    endpoint: str
    pid: int
    parent: int
    parent_started: float
    at: float
    device: str
    memory: int
    device_memory: int | None
    device_total: int | None
    busy: float
    items_per_second: float
    budget: int | None
