"""What takes long, done in front of the user: it shows progress, heeds signals, and says how endpoints were left."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

from orchestrator.cli.signals import heeding_signals
from orchestrator.cli.terminal import STDERR
from orchestrator.engine.progress import Progress
from orchestrator.report.progress import show_bar, show_lines, shown
from orchestrator.store.sqlite import describe

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from orchestrator.app import App
    from orchestrator.cli.global_options import Globals
    from orchestrator.engine.run.run_request import RunRequest
    from orchestrator.engine.stop import Stop
    from orchestrator.report.progress import Show

T = TypeVar("T")


async def attended(app: App, work: Callable[[Progress, Stop], Awaitable[T]], *, grace: float, show: Show | None) -> T:
    """Do the work, which gets its progress and a stop. `show`: how to show progress; None says only what went wrong.

    `grace`: seconds for what is in flight once a signal has arrived.
    """
    progress = Progress()
    try:
        async with shown(progress, show):
            return await heeding_signals(partial(work, progress), progress, app.store.database.busy_timeout, grace)
    finally:
        for proof in [] if show is None else progress.proofs:
            STDERR.print(proof)
        for trouble in progress.troubles:
            STDERR.print(trouble, style="yellow")


async def attended_run(
    options: Globals, request: RunRequest, app: App, work: Callable[[Progress, Stop], Awaitable[T]], *, quiet: bool
) -> T:
    """Do the work of a run with a progress bar, or with lines in a log file; first say which ledger is used."""
    if not quiet:
        STDERR.print(f"ledger {options.settings().ledger} · {describe()}", style="dim")
    show = partial(show_bar if STDERR.is_terminal else show_lines, STDERR)
    return await attended(app, work, grace=request.job.policy.grace, show=None if quiet else show)
