"""Jobs in the cells of a notebook: a real kernel, its display, its button for interrupts."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING

import pytest

from orchestrator.engine.tasks import task_group
from tests.api.notebooks import notebook
from tests.commands import rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.api.notebooks import Notebook
    from tests.commands import Workplace
    from tests.servers import InferenceServer

ITEMS = 12
HOSTILE = "</td><script>alert(1)</script>"
_FIRST = """
from orchestrator import Job, Policy, arun, run
from orchestrator.endpoints import CommandEndpoint, HttpEndpoint
from orchestrator.sinks import JsonlSink
from orchestrator.sources import JsonlSource

def job_of(name):
    endpoint = CommandEndpoint(
        "rig", {url!r}, resume=["sh", "-c", "echo running > rig"], state=["sh", "-c", "cat rig || echo stopped"],
        pause=["sh", "-c", "echo stopped > rig"], look_every=0.02, price_per_hour=1.0,
    )
    return Job(name, JsonlSource("rows.jsonl", id="id"), endpoint, JsonlSink(f"{{name}}.jsonl", ["text"]), "{{text}}",
               policy=Policy(concurrency=2))
"""


@pytest.fixture
async def cells(workplace: Workplace, server: InferenceServer) -> AsyncIterator[Notebook]:
    workplace.write_rows([{"id": "hostile", "text": HOSTILE}, *rows(range(ITEMS - 1))])
    async with notebook(workplace) as opened:
        assert await opened.cell(_FIRST.format(url=server.url)) == []
        yield opened


async def interrupted(cells: Notebook, server: InferenceServer, source: str, *, times: int) -> list[str]:
    """Execute a cell, interrupt it while requests are in flight, and return the names of the errors in its output."""
    server.reset()
    server.behave(hold_after=5)
    outputs = []
    async with task_group() as group:

        async def execute() -> None:
            outputs.extend(await cells.cell(source))

        cells.messages.clear()
        group.start_soon(execute)
        await cells.shows(f"asking: 5/{ITEMS}")
        await cells.interrupt()
        await cells.shows("stopping: waiting for the answers in flight")
        if times == 1:
            server.behave()
        else:
            await cells.interrupt()
    return [output["ename"] for output in outputs if output["output_type"] == "error"]


@pytest.mark.slow
async def test_cells_run_jobs_show_progress_and_results_and_are_interrupted(
    cells: Notebook, workplace: Workplace, server: InferenceServer
) -> None:
    rig = workplace.folder / "rig"
    # interrupted once: the answers in flight come in, and the endpoint is paused before the cell ends
    assert await interrupted(cells, server, "run(job_of('one'))", times=1) == ["KeyboardInterrupt"]
    assert rig.read_text() == "stopped\n"
    answered = server.quiet().requests
    assert 5 < answered < ITEMS
    assert workplace.count("result") == answered

    # the next cell continues, with one display that is updated in place, and shows the result as a table
    cells.messages.clear()
    progress, result = await cells.cell("run(job_of('one'))")
    assert server.quiet().requests == ITEMS
    assert cells.updates()[-1].startswith(f"done: {ITEMS}/{ITEMS}")
    assert progress["data"]["text/plain"] == cells.updates()[-1]
    assert progress["output_type"] == "display_data"
    assert re.fullmatch(
        rf"<Result of run 1 of one: {ITEMS} items: {ITEMS} completed, 0 discarded; awake .* s, \$.*>",
        result["data"]["text/plain"],
    )
    html = result["data"]["text/html"]
    assert f"{ITEMS} completed, 0 discarded" in html
    assert html.count("<tr>") == 1 + 5
    assert "and 7 more" in html

    assert "<td>i0</td>" in re.sub(" style=.*?>", ">", html)
    assert escape(HOSTILE) in html
    assert "<script" not in html

    # a coroutine: interrupted once, then twice, then to its end
    assert await interrupted(cells, server, "await arun(job_of('two'))", times=1) == ["CancelledError"]
    assert rig.read_text() == "stopped\n"
    assert await interrupted(cells, server, "await arun(job_of('three'))", times=2) == ["CancelledError"]
    assert rig.read_text() == "stopped\n"
    server.behave()
    _, result = await cells.cell("await arun(job_of('two'))")
    assert f"run 2 of two: {ITEMS} items: {ITEMS} completed" in result["data"]["text/plain"]
    assert await cells.cell("r = run(job_of('three'), progress=False)") == []

    # a failure is an error of the cell, and its text the line of the command
    _, failure = await cells.cell("run(Job('none', JsonlSource('none.jsonl'), HttpEndpoint('http://localhost/')))")
    assert (failure["output_type"], failure["ename"]) == ("error", "UsageError")
    assert "none.jsonl" in failure["evalue"]
