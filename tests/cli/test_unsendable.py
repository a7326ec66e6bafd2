"""Requests that are refused before they are sent wake nothing and do not count as requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commands import Workplace


def job(workplace: Workplace, **code: str) -> Path:
    """Return a job at an endpoint that leaves a file when it is woken."""
    woken = workplace.folder / "woken"
    commands = {
        "resume": ["touch", str(woken)],
        "state": ["sh", "-c", f"test -e {woken} && echo up || echo down"],
        "pause": ["rm", "-f", str(woken)],
    }
    settings = ", ".join(f"{verb}={command!r}" for verb, command in commands.items())
    prelude = f"""
from orchestrator.endpoints import CommandEndpoint

billed = CommandEndpoint("mine", {workplace.url!r}, {settings}, look_every=0.05)
"""
    return workplace.job(prelude=prelude, endpoint="billed", **code)


def test_a_template_that_can_send_nothing_wakes_no_endpoint(workplace: Workplace) -> None:
    workplace.write_rows([{"id": str(number), "text": "a"} for number in range(5)])
    ended = workplace.run("run", job(workplace, request="{'inputs': '{text}', 'stream': True}"), "--json")
    assert (ended.code, ended.json["requests"]) == (3, 0)
    assert ended.json["counts"]["discarded"] == 5
    assert "not sent: answers are taken whole" in workplace.failures()[0]["error"]["message"]
    assert workplace.count("awake_window") == 0


@pytest.mark.parametrize(
    "endpoint",
    [
        "LocalServer(['false', '{port}'], wire=OpenAIChatWire('m'))",
        "Vllm('m', program=['false'])",
    ],
)
def test_a_template_that_can_send_nothing_starts_no_server_of_ours(workplace: Workplace, endpoint: str) -> None:
    workplace.write_rows([{"id": str(number), "text": "a"} for number in range(3)])
    prelude = "from orchestrator.endpoints import LocalServer, Vllm\nfrom orchestrator.wires import OpenAIChatWire\n"
    request = "{'messages': [{'role': 'user', 'content': '{text}'}], 'stream': True}"
    ended = workplace.run("run", workplace.job(prelude=prelude, endpoint=endpoint, request=request), "--json")
    assert (ended.code, ended.json["requests"], ended.json["counts"]["discarded"]) == (3, 0, 3)


def test_if_every_row_is_unsendable_the_run_fails_and_discards_nothing(workplace: Workplace) -> None:
    workplace.write_rows([{"id": str(number), "text": f"a{number}"} for number in range(9)])
    wrong = job(
        workplace, request="{'inputs': '{text}', 'stream': True}", policy="breaker=4, backoff=Backoff(first=0.01)"
    )
    ended = workplace.run("run", wrong)
    assert ended.code == 1
    assert "4 requests in a row failed for the same cause (rejected: not sent: answers are taken whole" in ended.err
    assert workplace.count("awake_window") == 0
    assert workplace.run("status", "--json").json["counts"]["discarded"] == 0
    assert (workplace.count("result"), workplace.count("attempt")) == (0, 0)


def test_an_unsendable_row_affects_no_other_and_sends_no_request(workplace: Workplace) -> None:
    rows = [{"id": str(number), "text": f"a{number}", "stream": number in {0, 3}} for number in range(5)]
    workplace.write_rows(rows)
    ended = workplace.run("run", job(workplace, request="{'inputs': '{text}', 'stream': '{stream}'}"), "--json")
    assert (ended.code, ended.json["requests"]) == (3, 3)
    assert ended.json["counts"]["discarded"] == 2
    assert workplace.count("awake_window") == 1
