"""Load and memory of the workers on this machine, in words, for `status` and the progress."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio
import psutil
from anyio import to_thread

from orchestrator.endpoints.vitals_files import vitals_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.domain.worker import Vitals

_EVERY = 1.0  # seconds
_UNITS = ((1e9, "GB"), (1e6, "MB"))


async def follow(workers: list[Vitals]) -> None:
    """Keep the list up to date with this process's workers."""
    while True:
        workers[:] = await to_thread.run_sync(_own)
        await anyio.sleep(_EVERY)


def vitals_line(worker: Vitals) -> str:
    """Return one worker's vitals in words.

    `local:minilm@cuda:0 on cuda:0: busy 97%, 1,234.5 items/s, memory 742 MB, of the device 12.3 of 139.8 GB`.
    """
    parts = [f"busy {worker.busy:.0%}", f"{worker.items_per_second:,.1f} items/s", f"memory {_size(worker.memory)}"]
    if worker.device_memory is not None and worker.device_total is not None:
        parts.append(f"of the device {_size(worker.device_memory)} of {_size(worker.device_total)}")
    if worker.budget is not None:
        parts.append(f"{worker.budget:,} tokens a call")
    if worker.dtype is not None:
        parts.append(worker.dtype)
    where = worker.device if worker.node is None else f"{worker.device} of {worker.node}"
    return f"{worker.endpoint} on {where}: {', '.join(parts)}"


def brief(workers: Sequence[Vitals]) -> str:
    """Return the vitals of all workers together in a few words: `busy 97%, memory 742 MB`."""
    if not workers:
        return ""
    busy = sorted(worker.busy for worker in workers)
    spread = " to ".join(dict.fromkeys(f"{share:.0%}" for share in (busy[0], busy[-1])))
    words = f"busy {spread}, memory {_size(sum(worker.memory for worker in workers))}"
    on_device = sum(worker.device_memory or 0 for worker in workers)
    return f"{words}, of devices {_size(on_device)}" if on_device else words


def _own() -> list[Vitals]:
    return vitals_of(os.getpid(), psutil.Process().create_time())


def _size(count: int) -> str:
    unit, name = next(((unit, name) for unit, name in _UNITS if count >= unit), (1e6, "MB"))
    return f"{count / unit:,.1f} {name}" if name == "GB" else f"{count / unit:,.0f} {name}"
