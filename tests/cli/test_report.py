"""`orchestrator report` as text, JSON and HTML, and what it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.commands import rows

if TYPE_CHECKING:
    from tests.commands import Workplace
    from tests.servers import InferenceServer


def test_the_report_comes_as_text_html_and_json(workplace: Workplace, server: InferenceServer) -> None:
    workplace.write_rows([*rows(range(40)), {"id": "<i>bad</i>", "text": "poison"}])
    assert workplace.run("run", workplace.job()).code == 3
    assert server.quiet().requests > 40
    text = workplace.run("report", "talk").out
    assert "41 items: 40 completed, 1 discarded" in text
    assert "\x1b" not in text
    assert "for example <i>bad</i>; next: orchestrator item 1 '<i>bad</i>'" in text
    found = workplace.run("report", "--since", "12h", "--json").json
    assert [run["counts"]["completed"] for run in found["runs"]] == [40]
    assert found["runs"][0]["asked"]["completed"] == 40
    assert len(found["runs"][0]["over_time"]) >= 1
    ended = workplace.run("report", "--html", "night.html")
    assert (ended.code, ended.out) == (0, "")
    written = (workplace.folder / "night.html").read_text()
    assert "&lt;i&gt;bad&lt;/i&gt;" in written
    assert "<i>bad</i>" not in written


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--since", "soon"], "is not understood"),
        (["--since", "2199-01-01"], "is in the future"),
        (["1", "--since", "1h"], "not both"),
        (["7"], "no run '7'"),
        (["--html", "no/such/folder.html"], "cannot be written: No such file or directory"),
    ],
)
def test_an_error_of_report_is_one_line(workplace: Workplace, arguments: list[str], says: str) -> None:
    workplace.make_ledger()
    ended = workplace.run("report", *arguments)
    assert ended.code == 2
    assert says in ended.line
