"""orchestrator endpoints bench: load an endpoint for a while, and measure how it answers."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from anyio import to_thread

from orchestrator.app.endpoints.bench import Bench
from orchestrator.cli.attended import attended
from orchestrator.cli.command import Missing, print_json, reported, with_app
from orchestrator.cli.endpoints.check import TokenEnv
from orchestrator.cli.endpoints.which import Name, Namespace
from orchestrator.cli.html_file import check_page, write_page
from orchestrator.cli.options import AsJson
from orchestrator.cli.terminal import STDERR, Terminal
from orchestrator.domain.errors import UsageError
from orchestrator.domain.exit_code import ExitCode
from orchestrator.domain.load import Arrivals, Load, Objective, load_of
from orchestrator.domain.load_json import as_json
from orchestrator.domain.local_path import local_path
from orchestrator.domain.moment import seconds_of
from orchestrator.domain.policy import Policy
from orchestrator.engine.bench.load_test import LoadProgress
from orchestrator.engine.run.run_request import request_from
from orchestrator.report.load_page import load_page
from orchestrator.report.load_text import show_lines, show_live, show_load_test

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.app import App
    from orchestrator.domain.load_figures import LoadTest

T = TypeVar("T")

For = Annotated[str, typer.Option("--for", help="For how long requests are sent (30s, 10m).", metavar="TIME")]
Rate = Annotated[
    float | None,
    typer.Option(help="Open loop: so many arrivals a second, whatever comes back."),
]
Spaced = Annotated[Arrivals, typer.Option("--arrivals", help="With --rate: arrivals by chance, or evenly spaced.")]
Concurrency = Annotated[int | None, typer.Option(help="Closed loop: so many requests in flight (the default: 1).")]
SweepUp = Annotated[
    bool, typer.Option("--sweep", help="Closed loops of 1, 2, 4 ... requests in flight, to find how many are best.")
]
Items = Annotated[
    Path | None,
    typer.Option(help="Send the requests of this job, with its policy; NAME may be one of its endpoints."),
]
Slo = Annotated[
    list[str] | None,
    typer.Option(help="An objective such as p95=2s, from arrival to answer; repeatable.", metavar="pN=TIME"),
]
MaxCost = Annotated[float | None, typer.Option(min=0.0, help="End once it has cost so many dollars.")]
Remember = Annotated[
    bool, typer.Option("--remember", help="With --sweep: let runs begin with the best number of requests in flight.")
]
Stream = Annotated[
    bool, typer.Option("--stream", help="Ask for answers in parts, and measure the time until the first text.")
]
Output = Annotated[
    Path | None, typer.Option("-o", "--output", help="Write a page with plots to this file.", metavar="PAGE.html")
]


def bench(
    context: typer.Context,
    name: Name,
    for_: For = "100s",
    rate: Rate = None,
    arrivals: Spaced = Arrivals.POISSON,
    concurrency: Concurrency = None,
    sweep: SweepUp = False,
    items: Items = None,
    slo: Slo = None,
    max_cost: MaxCost = None,
    remember: Remember = False,
    stream: Stream = False,
    namespace: Namespace = None,
    token_env: TokenEnv = None,
    json: AsJson = False,
    output: Output = None,
) -> None:
    """Load an endpoint for a while, and measure latency, throughput and cost. It is woken and paused as by a run."""
    with reported(json=json):
        asked = Bench(
            name,
            _load(rate, arrivals, concurrency, sweep=sweep),
            _parsed(seconds_of, for_, "--for"),
            namespace,
            token_env,
            None if items is None else request_from(items).job,
            [_parsed(Objective.read, text, "--slo") for text in slo or ()],
            max_cost,
            remember,
            stream,
        )
    found = with_app(context, partial(_bench, asked, output, json=json), json=json, missing=Missing.CREATE)
    code = _code(found)
    if output is not None:
        write_page(output, load_page(found), json=json)
    if json:
        print_json(as_json(found) | {"exit_code": code})
    else:
        show_load_test(found, Terminal(soft_wrap=True))
        for hint in _hints(found, asked):
            STDERR.print(hint)
    raise typer.Exit(code)


def _parsed(read: Callable[[str], T], text: str, option: str) -> T:
    try:
        return read(text)
    except ValueError as error:
        raise UsageError(f"{option} {error}") from error


def _load(rate: float | None, arrivals: Arrivals, concurrency: int | None, *, sweep: bool) -> Load:
    try:
        return load_of(rate, arrivals, concurrency, sweep=sweep)
    except ValueError as error:
        raise UsageError(str(error)) from error


async def _bench(asked: Bench, output: Path | None, app: App, *, json: bool) -> LoadTest:
    if output is not None:
        await to_thread.run_sync(check_page, local_path(output), app.store.database.path)
    live, policy = LoadProgress(), Policy() if asked.job is None else asked.job.policy
    show = partial(show_live if STDERR.is_terminal else show_lines, live, asked.seconds, STDERR)
    work = partial(app.bench, asked, shown=live)
    return await attended(app, work, grace=policy.grace, show=None if json else show)


def _code(found: LoadTest) -> ExitCode:
    if found.interrupted:
        return ExitCode.INTERRUPTED
    if found.ended is not None:
        return ExitCode.STOPPED
    return ExitCode.COMPLETED if found.met else ExitCode.FAILED


def _hints(found: LoadTest, asked: Bench) -> list[str]:
    """Return what the user may want to do with the best concurrency."""
    if found.knee is None or asked.remember:
        return []
    best = found.knee.concurrency
    fixed = f"to fix it, run with --set policy.concurrency={best}"
    return [f"to let runs begin with {best:,} in flight, add --remember; {fixed}"]
