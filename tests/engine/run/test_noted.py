"""Truncated and empty answers are delivered, and counted in every report of a run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator import Job
from orchestrator.domain.answer import Note
from orchestrator.endpoints import HttpEndpoint
from orchestrator.engine.progress import Progress
from orchestrator.engine.report import report_of
from orchestrator.engine.run.run_job import run_job
from orchestrator.engine.run.run_request import RunRequest
from orchestrator.engine.stop import Stop
from orchestrator.sinks import JsonlSink
from orchestrator.sources import IterableSource
from orchestrator.wires import OpenAIChatWire
from tests.engine.scripted import outputs, run
from tests.unguarded import UNGUARDED
from tests.wires.dialects import served

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from orchestrator.store import Store

TEXTS = ["cut", "cut", "empty", "reasoned", "fine"]  # two items have the same request


def model(body: Any) -> object:
    text = body["messages"][0]["content"]
    said = {"empty": " ", "reasoned": None}.get(text, text.upper())
    how = "length" if text in {"cut", "reasoned"} else "stop"
    return {"choices": [{"message": {"role": "assistant", "content": said}, "finish_reason": how}]}


async def test_truncated_and_empty_answers_are_counted(store: Store, tmp_path: Path) -> None:
    async with served({"/v1/chat/completions": model}) as server:
        rows = [{"id": str(number), "text": text} for number, text in enumerate(TEXTS)]
        endpoint = HttpEndpoint(server.url, wire=OpenAIChatWire("m"))
        job = Job("j", IterableSource(rows, id="id"), endpoint, JsonlSink(tmp_path / "out.jsonl"))
        first = await run(job, store)
        assert len(server.asked) == 4  # an answer truncated before any text is not paid for twice
        again = await run(job, store)
        assert len(server.asked) == 4
        renamed = replace(job, name="renamed", sink=JsonlSink(tmp_path / "renamed.jsonl"))
        reused = await run_job(RunRequest(renamed, reuse=["j"]), store, Progress(), Stop(), UNGUARDED)
        assert len(server.asked) == 5  # the item that was discarded
    assert reused.noted == {Note.CUT: 2, Note.EMPTY: 1}
    assert outputs(job) == {"0": "CUT", "1": "CUT", "2": " ", "4": "FINE"}
    (cause,) = first.causes
    assert "raise max_tokens" in cause.message
    for report in (first, again):
        assert report.noted == {Note.CUT: 2, Note.EMPTY: 1}
        assert report.manifest["noted"] == {"cut": 2, "empty": 1}
    (shown,) = (await report_of(store, first.run.id)).runs
    assert shown.ran.noted == {Note.CUT: 2, Note.EMPTY: 1}
