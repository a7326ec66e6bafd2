"""What a worker on this machine and the process that started it exchange."""

from __future__ import annotations

from dataclasses import dataclass

CANNOT_SERVE = "cannot serve: "  # begins the worker's last line if there will be no model
SERVING = "serving on "  # begins its first line: the URL
TOKEN_ENV = "ORCHESTRATOR_HANDLER_TOKEN"  # what clients must send to a worker or handler on a port
CONTAINER_TOKEN_ENV = "ORCHESTRATOR_CONTAINER_TOKEN"  # what clients must send to a worker in a container
CONTAINER_TOKEN_HEADER = "X-Orchestrator-Token"
COMPUTING = ("device", "hardware", "dtype", "threads", "versions")  # of its health: what the last digits depend on


@dataclass(frozen=True, slots=True)
class Vitals:
    """One reading of one worker. Memory in bytes; `busy` and `items_per_second` are over the last ten seconds.

    `parent`, `parent_started`: the process of the run, as identified in the ledger. `device_memory`: the accelerator
    memory that the worker uses, `device_total` all memory of the accelerator; None on the CPU. `budget`: padded tokens
    in one call of the model, None for a handler. `dtype`: the number format of the model, None for a handler.
    `node`: the machine that it runs on, as its cluster names it.
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
    dtype: str | None = None
    node: str | None = None
