"""Inputs too long for the model are counted in every report of a run, including twins and reused answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

tiny_models = pytest.importorskip("tests.tiny_models", reason="needs the `local` extra", exc_type=ImportError)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commands import Workplace

pytestmark = pytest.mark.unmeasured

SAID = "3 inputs were cut to 16 tokens"


def job(workplace: Workplace, folder: Path, **parameters: object) -> Path:
    rows = [{"id": "1", "text": "a"}, *({"id": str(n), "text": "b c " * (400 + n // 4)} for n in (2, 3, 4))]
    workplace.write_rows(rows)  # 2 and 3 are the same request
    return workplace.job(
        prelude="from orchestrator.endpoints import LocalEndpoint",
        endpoint=f"LocalEndpoint({str(folder)!r}, 'feature-extraction', threads=1, parameters={parameters!r})",
    )


def test_cut_inputs_are_counted(workplace: Workplace) -> None:
    folder = tiny_models.sentence_encoder(workplace.folder / "model", "mean")
    file = job(workplace, folder)
    ended = workplace.run("run", file)
    assert ended.code == 0, ended.err
    assert SAID in ended.err
    assert workplace.manifest()["noted"] == {"input_cut": 3}
    assert SAID in workplace.run("status").out
    assert workplace.run("status", "--json").json["noted"] == {"input_cut": 3}
    assert SAID in workplace.run("report").out
    assert workplace.run("report", "1", "--json").json["runs"][0]["noted"] == {"input_cut": 3}
    listed = workplace.run("items", "1", "--noted", "--json").json["items"]
    assert [(item["id"], item["notes"]) for item in listed] == [(name, ["input_cut"]) for name in ("2", "3", "4")]
    lines = workplace.run("items", "1", "--noted").out.splitlines()
    assert [line.split("\t")[:4] for line in lines] == [
        [name, "completed", "1", "input_cut:16"] for name in ("2", "3", "4")
    ]
    assert "orchestrator items 1 --noted" in ended.err
    again = workplace.run("run", "--json", file).json
    assert (again["requests"], again["noted"]) == (0, {"input_cut": 3})


def test_without_truncation_long_inputs_are_discarded_with_both_lengths(workplace: Workplace) -> None:
    folder = tiny_models.sentence_encoder(workplace.folder / "model", "mean")
    ended = workplace.run("run", "--json", job(workplace, folder, truncation=False))
    assert ended.code == 3
    assert ended.json["noted"] == {}
    messages = {failure["error"]["message"] for failure in workplace.failures()}
    assert all("tokens; the model takes 16" in message for message in messages)
    assert len(workplace.failures()) == 3
