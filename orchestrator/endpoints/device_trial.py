"""Whether a local endpoint's devices can be used: each is tried by a process of its own, as its worker would be."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from orchestrator.endpoints.local import environment

if TYPE_CHECKING:
    from orchestrator.endpoints.local import LocalEndpoint

_PATIENCE = 60.0  # seconds: torch takes a few to be imported, and a device some to be opened


async def why_unusable(endpoint: LocalEndpoint) -> str | None:
    """Why one of the devices that it names cannot be used; None where they can, or none is named.

    `UsageError` where there are not so many.
    """
    for worker in await to_thread.run_sync(endpoint.workers):
        if worker.device is None:
            continue
        command = [sys.executable, "-P", "-m", "orchestrator.worker.device", str(worker.device)]
        with anyio.move_on_after(_PATIENCE):
            tried = await anyio.run_process(command, check=False, env=environment(worker))
            if tried.returncode:
                said = tried.stderr.decode(errors="replace").strip().rpartition("\n")[2]
                return f"device {worker.device!r} cannot be used: {said}"
            continue
        return f"device {worker.device!r} was not ready after {_PATIENCE:.0f} s"
    return None
