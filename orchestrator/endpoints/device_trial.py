"""Try whether a local endpoint's devices can be used, each in a process like the one its worker would run in."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from orchestrator.endpoints.local import environment

if TYPE_CHECKING:
    from orchestrator.endpoints.local import LocalEndpoint

_TIMEOUT = 60.0  # seconds: importing torch and opening a device takes several


async def why_unusable(endpoint: LocalEndpoint) -> str | None:
    """Return why one of the endpoint's devices cannot be used, or None if all can or it names none.

    Raises `UsageError` if this machine lacks one of them.
    """
    for worker in await to_thread.run_sync(endpoint.workers):
        if worker.device is None:
            continue
        command = [sys.executable, "-P", "-m", "orchestrator.worker.device", str(worker.device)]
        with anyio.move_on_after(_TIMEOUT):
            trial = await anyio.run_process(command, check=False, env=environment(worker))
            if trial.returncode:
                last_line = trial.stderr.decode(errors="replace").strip().rpartition("\n")[2]
                return f"device {worker.device!r} cannot be used: {last_line}"
            continue
        return f"device {worker.device!r} was not ready after {_TIMEOUT:.0f} s"
    return None
