"""What the verbs of `orchestrator handler` share."""

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

_DRAIN = 0.25  # seconds for words still on the way: what the process started may hold its streams for ever

Folder = Annotated[Path, typer.Argument(help="The folder of a handler.py.", metavar="DIR")]
Task = Annotated[str | None, typer.Option("--task", help="What the handler finds in HF_TASK.", metavar="TASK")]
Install = Annotated[
    bool,
    typer.Option("--install-requirements", help="Install its requirements.txt into an environment of its own first."),
]
PassEnv = Annotated[
    list[str] | None,
    typer.Option(
        "--pass-env",
        help="An environment variable that the handler is given although it is named like a secret.",
        metavar="NAME",
    ),
]


async def ended(process: Process, *, out: Callable[[str], object], err: Callable[[str], object]) -> int:
    """Hand on what it writes, line by line, until it has ended, and give its exit code."""
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
    """What the handler says, to the terminal."""
    STDERR.print(line)
