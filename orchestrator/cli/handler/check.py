"""orchestrator handler check: call a handler once, step by step, and report what would fail on Hugging Face."""

from __future__ import annotations

import mimetypes
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
import orjson
import typer
from anyio import to_thread

from orchestrator.cli.command import print_json, without_store
from orchestrator.cli.handler.options import Folder, Install, PassEnv, Task, ended, pass_on
from orchestrator.cli.options import AsJson
from orchestrator.cli.terminal import say
from orchestrator.domain.errors import UsageError
from orchestrator.domain.exit_code import ExitCode
from orchestrator.domain.step import Step
from orchestrator.endpoints.handler_process import CHECK, handler_in, handler_process
from orchestrator.endpoints.last_words import ending

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anyio.abc import Process

    from orchestrator.endpoints import LocalEndpoint

Payload = Annotated[str, typer.Option("--payload", help="The request as JSON; @FILE sends a file.", metavar="JSON")]
ContentType = Annotated[
    str | None,
    typer.Option(
        "--content-type", help="Content type of the request; by default JSON, or guessed from the file's name."
    ),
]
Timeout = Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds for all steps together.", metavar="N")]
_STEPS = ("import", "init", "read", "call", "json", "hub")


def check(
    context: typer.Context,
    folder: Folder,
    payload: Payload,
    content_type: ContentType = None,
    task: Task = None,
    install_requirements: Install = False,
    pass_env: PassEnv = None,
    timeout: Timeout = 300.0,
    json: AsJson = False,
) -> None:
    """Import, create and call a handler in its own process, and report what would fail on Hugging Face, and why."""

    async def act() -> list[Step]:
        find = partial(handler_in, folder, task, install_requirements=install_requirements, pass_env=pass_env or ())
        arguments = await to_thread.run_sync(_arguments, payload, content_type)
        return await _checked(await to_thread.run_sync(find), arguments, timeout, None if json else say)

    steps = without_store(context, act, json=json)
    ok = all(step.verdict == "ok" for step in steps)
    if json:
        print_json({"handler": str(folder), "ok": ok, "steps": [asdict(step) for step in steps]})
    raise typer.Exit(ExitCode.COMPLETED if ok else ExitCode.FAILED)


def _arguments(payload: str, content_type: str | None) -> list[str]:
    """Return the payload for the process. Raises `UsageError` if it is neither JSON nor a file."""
    if payload.startswith("@"):
        path = Path(payload[1:]).expanduser().absolute()
        if not path.is_file():
            raise UsageError(f"--payload: there is no file {path}")
        kind = content_type or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        return [f"--file={path}", f"--content-type={kind}"]
    try:
        orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise UsageError(f"--payload is not JSON ({error}); a string needs quotes of its own: '\"a text\"'") from error
    return [f"--payload={payload}", f"--content-type={content_type or 'application/json'}"]


async def _checked(
    endpoint: LocalEndpoint, arguments: Sequence[str], patience: float, say: Callable[[object], None] | None
) -> list[Step]:
    """Return every step. The step in which the process died, or took too long, has failed."""
    steps: list[Step] = []

    def tell(step: Step) -> None:
        steps.append(step)
        if say is not None:
            say(step)

    async with handler_process(endpoint, CHECK, arguments) as process:
        with anyio.move_on_after(patience) as scope:
            await ended(process, out=lambda line: tell(Step(**orjson.loads(line))), err=pass_on)
    rest = [name for name in _STEPS if name not in {step.name for step in steps}]
    if rest and all(step.verdict == "ok" for step in steps):
        tell(Step(rest.pop(0), "failed", _why(process, patience if scope.cancelled_caught else None)))
    for name in rest:
        tell(Step(name, "not tried"))
    return steps


def _why(process: Process, patience: float | None) -> str:
    if patience is not None:
        return f"no result within {patience:g} s (--timeout)"
    return f"the handler's process {ending(process.returncode or 0)}"
