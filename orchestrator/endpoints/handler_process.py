"""A handler in its own process, for `orchestrator handler`, with the worker's code, environment and lifeline pipe."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import anyio

from orchestrator.domain.errors import UsageError
from orchestrator.domain.worker import TOKEN_ENV
from orchestrator.endpoints.local import LocalEndpoint, environment
from orchestrator.endpoints.local_model import HANDLER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from anyio.abc import Process

CHECK = "orchestrator.worker.handler.check"
SERVE = "orchestrator.worker"


def handler_in(
    folder: Path, task: str | None, *, install_requirements: bool, pass_env: Sequence[str] = ()
) -> LocalEndpoint:
    """Return the endpoint that a job would use for this folder. Raises `UsageError` if it has no handler."""
    if not (folder / HANDLER).is_file():
        raise UsageError(f"there is no {HANDLER} in {folder}; `orchestrator handler new DIR` creates one to start with")
    return LocalEndpoint(
        str(folder.absolute()),
        task,
        install_requirements=install_requirements,
        trust_remote_code=True,  # the commands of `orchestrator handler` run nothing else
        pass_env=pass_env,
    )


@asynccontextmanager
async def handler_process(
    endpoint: LocalEndpoint, module: str, arguments: Sequence[str], token: str | None = None
) -> AsyncIterator[Process]:
    """Run one of the worker's modules on the handler, with its output piped.

    The process is gone when the block ends, and also if we die. `token`: what a client must send.
    """
    process = await anyio.open_process(
        [
            *(sys.executable, "-P", "-m", module, f"--model={endpoint.local_model.source}", f"--parent={os.getpid()}"),
            *([f"--task={endpoint.task}"] if endpoint.task else []),
            *(["--install-requirements"] if endpoint.install_requirements else []),
            *arguments,
        ],
        stdin=subprocess.PIPE,
        env=environment(endpoint) | ({} if token is None else {TOKEN_ENV: token}),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGKILL)
            await process.aclose()
