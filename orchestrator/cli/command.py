"""Shared by all commands: opening the ledger, the event loop, and one line and an exit code for each failure."""

from __future__ import annotations

import gc
import json as json_
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, NoReturn, TypeVar

import anyio
import orjson
import typer
from anyio import to_thread

from orchestrator import exact_json
from orchestrator.cli.leftovers import leaving_tasks_behind
from orchestrator.cli.terminal import STDERR, show_traceback
from orchestrator.domain.errors import (
    Interrupted,
    LedgerError,
    OrchestratorError,
    RunStopped,
    UsageError,
)
from orchestrator.domain.exit_code import ExitCode
from orchestrator.domain.phrases import visible_json

if TYPE_CHECKING:
    from orchestrator.app import App
    from orchestrator.cli.global_options import Globals
    from orchestrator.store import Store

T = TypeVar("T")


class Missing(Enum):
    """What a command does if there is no ledger."""

    REFUSE = auto()  # there is nothing to show, and --db may be mistyped
    CREATE = auto()
    LEND = auto()  # use an empty, temporary one: the command also makes sense without earlier runs


def with_app(
    context: typer.Context,
    action: Callable[[App], Awaitable[T]],
    *,
    json: bool = False,
    missing: Missing = Missing.REFUSE,
    say: Callable[[str], None] | None = None,
) -> T:
    """Run an action of the application. An expected failure becomes one line and the process's exit code.

    `say` prints the application's messages to the user; by default to standard error.
    """
    return without_store(context, partial(_act, context.obj, action, missing, say or _say), json=json)


def with_store(
    context: typer.Context,
    action: Callable[[Store], Awaitable[T]],
    *,
    json: bool = False,
    missing: Missing = Missing.REFUSE,
) -> T:
    """Run an action that needs only the ledger; failures as in `with_app`."""
    return with_app(context, lambda app: action(app.store), json=json, missing=missing)


def without_store(context: typer.Context, action: Callable[[], Awaitable[T]], *, json: bool = False) -> T:
    """Run an action that needs no ledger; failures as in `with_app`."""
    options: Globals = context.obj
    follows = bool(context.params.get("follow"))  # such a command is always ended by a signal
    if follows:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # from here on, an interruption needs cleanup
    try:
        gc.freeze()  # the modules: a fan-out would have them looked at again and again
        return anyio.run(leaving_tasks_behind, action, backend_options={"use_uvloop": sys.platform != "win32"})
    except KeyboardInterrupt:
        fail(Interrupted("interrupted" if follows else "interrupted; run the same command again"), json=json)
    except Exception as error:
        fail_if_expected(error, options, json=json)
        raise


def fail_if_expected(error: Exception, options: Globals, *, json: bool = False) -> None:
    """End the process with one line and an exit code if the user can mend this, for example a damaged ledger."""
    if isinstance(error, UsageError):  # the settings, which name the ledger, may be what is wrong
        expected: OrchestratorError | None = error
    else:
        from orchestrator.app import explained
        from orchestrator.store.database import ledger_path

        expected = explained(error, ledger_path(options.settings().ledger))
    if expected is not None:
        if options.verbose:
            show_traceback(error)
        fail(expected, json=json)


def _say(line: str) -> None:
    with suppress(OSError):  # called in the middle of a ledger write, which must not fail because of it
        STDERR.print(line, style="yellow")


async def _act(
    options: Globals, action: Callable[[App], Awaitable[T]], missing: Missing, say: Callable[[str], None]
) -> T:
    from orchestrator.app import open_app

    settings = await to_thread.run_sync(options.settings)
    async with open_app(settings, create=missing is Missing.CREATE, lend=missing is Missing.LEND, say=say) as app:
        return await action(app)


@contextmanager
def reported(*, json: bool = False) -> Iterator[None]:
    """End the process with one line and an exit code if the block, which needs no ledger, fails as expected."""
    try:
        yield
    except OrchestratorError as error:
        fail(error, json=json)


def fail(error: OrchestratorError, *, json: bool) -> NoReturn:
    """Print the failure and end the process with its exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # otherwise another Ctrl-C during exit prints a traceback
    code = exit_code(error)
    if json:
        print_json({"error": str(error), "exit_code": code})
    STDERR.print(f"orchestrator: {error}", style="red")
    for note in getattr(error, "__notes__", ()):
        STDERR.print(note)
    raise typer.Exit(code)


def exit_code(error: OrchestratorError) -> ExitCode:
    """Return the documented exit code of a failure."""
    match error:
        case Interrupted():
            return ExitCode.INTERRUPTED
        case RunStopped():
            return ExitCode.STOPPED
        case UsageError() | LedgerError():
            return ExitCode.USAGE
        case _:
            return ExitCode.FAILED


def print_json(value: object) -> None:
    """Print one JSON object to stdout."""
    try:
        text = exact_json.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode()
    except TypeError:  # a value as deeply nested as orjson allows, inside this object
        text = json_.dumps(value, indent=2, default=str, ensure_ascii=False)
    typer.echo(visible_json(text))
