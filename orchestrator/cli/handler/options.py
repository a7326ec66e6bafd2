"""Options and output shared by the commands of `orchestrator handler`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from orchestrator.cli.terminal import STDERR
from orchestrator.engine.tasks import task_group

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import ByteReceiveStream, Process

_DRAIN = 0.25  # seconds for remaining output: processes that the handler started may keep its streams open for ever

Folder = Annotated[Path, typer.Argument(help="The folder with the handler.py.", metavar="DIR")]
Task = Annotated[str | None, typer.Option("--task", help="The value of HF_TASK for the handler.", metavar="TASK")]
Install = Annotated[
    bool,
    typer.Option("--install-requirements", help="First install its requirements.txt into a separate environment."),
]
PassEnv = Annotated[
    list[str] | None,
    typer.Option(
        "--pass-env",
        help="Pass this environment variable to the handler, although its name looks like a secret; repeatable.",
        metavar="NAME",
    ),
]


async def ended(process: Process, *, out: Callable[[str], object], err: Callable[[str], object]) -> int:
    """Pass on a process's output, line by line, until it has ended, and return its exit code."""
    async with task_group() as readers:
        readers.start_soon(_hand_on, process.stdout, out)
        readers.start_soon(_hand_on, process.stderr, err)
        code = await process.wait()
        readers.cancel_scope.deadline = anyio.current_time() + _DRAIN
    return code


async def _hand_on(stream: ByteReceiveStream | None, to: Callable[[str], object]) -> None:
    rest = b""
    assert stream is not None
    async for chunk in stream:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            to(line.decode(errors="replace"))
    if rest:
        to(rest.decode(errors="replace"))


def pass_on(line: str) -> None:
    """Print a line of the handler's output to the terminal."""
    STDERR.print(line)
