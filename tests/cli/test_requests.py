"""`requests`: what a run would ask, as a file for a batch service; and such files as jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

from tests.commands import rows

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commands import Workplace
    from tests.servers import InferenceServer

WIRE = (
    "from orchestrator.wires import OpenAIChatWire\nwire = OpenAIChatWire('m', {'max_tokens': 9}, system='Be brief.')"
)
BATCH = """
from orchestrator.sinks import BatchFileSink
from orchestrator.sources import BatchFileSource
from orchestrator.wires import OpenAIBatchWire
wire = OpenAIBatchWire("/v1/chat/completions", "m")
"""


def lines(path: Path) -> list[Any]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_the_requests_of_a_job_are_written_and_nothing_is_asked(workplace: Workplace, server: InferenceServer) -> None:
    workplace.write_rows(
        [{"id": "a", "text": "one"}, {"id": "b"}, {"id": "a", "text": "two"}, {"id": "c", "text": "x"}]
    )
    job = workplace.job(prelude=WIRE, endpoint=f"HttpEndpoint({server.url!r}, wire=wire)")
    ended = workplace.run("requests", job, "-o", "requests.jsonl", "--limit", "3")
    assert ended.code == 0
    assert ended.out.splitlines() == [
        "requests.jsonl: 1 request",
        "left out: item b column 'text' of the request template is not among the row's columns (id)",
        "left out: item a has the id of an earlier row",
    ]
    system = {"role": "system", "content": "Be brief."}
    body = {"model": "m", "max_tokens": 9, "messages": [system, {"role": "user", "content": "one"}]}
    (line,) = lines(workplace.folder / "requests.jsonl")
    assert line == {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    assert server.stats().requests == 0
    assert not workplace.ledger.exists()


def test_a_file_of_requests_runs_as_a_job_and_its_results_are_those_of_the_service(
    workplace: Workplace, server: InferenceServer
) -> None:
    workplace.write_rows([*rows(range(3)), {"id": "bad", "text": "poison"}])
    there = f"HttpEndpoint({server.url!r}, wire=wire)"
    asks = workplace.job(prelude=WIRE, endpoint=there)
    assert workplace.run("requests", asks, "-o", "anthropic.jsonl", "--dialect", "anthropic").code == 0
    runs = workplace.job(
        "batch.py",
        prelude=BATCH,
        name=repr("batch"),
        endpoint=there,
        source="BatchFileSource('anthropic.jsonl')",
        request=repr("{body}"),
        sink=f"BatchFileSink({str(workplace.output)!r}, 'anthropic')",
    )
    ended = workplace.run("run", "--quiet", runs)
    assert ended.code == 3, ended.err
    results = lines(workplace.output)
    assert [line["custom_id"] for line in results] == [str(row["id"]) for row in rows(range(3))]
    assert {line["result"]["message"]["role"] for line in results} == {"assistant"}
    (failure,) = workplace.failures()
    assert (failure["custom_id"], failure["result"]["type"]) == ("bad", "errored")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["-o", "rows.jsonl", "--overwrite"], "rows.jsonl, which the source"),
        (["-o", "job.py"], "job.py exists"),
        (["-o", "missing/requests.jsonl"], "missing/requests.jsonl"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_in_one_line(
    workplace: Workplace, arguments: list[str], why: str
) -> None:
    workplace.write_rows(rows(range(3)))
    before = workplace.rows.read_bytes()
    job = workplace.job(prelude=WIRE, endpoint=f"HttpEndpoint({workplace.url!r}, wire=wire)")
    ended = workplace.run("requests", job, *arguments)
    assert ended.code == 2
    assert why in ended.line
    assert workplace.rows.read_bytes() == before


def test_a_job_of_another_format_is_told_which_wires_have_batch_files(workplace: Workplace) -> None:
    workplace.write_rows(rows(range(3)))
    ended = workplace.run("requests", workplace.job(), "-o", "requests.jsonl", "--json")
    assert ended.code == 2
    assert "give its endpoint such a wire, for example OpenAIChatWire" in ended.json["error"]
    assert not (workplace.folder / "requests.jsonl").exists()
