from __future__ import annotations

import pytest

from orchestrator.domain.placeholders import escaped, filled, names_of, placeholders_in

NAMES = names_of(7, "talk", 1_795_300_000.0)


def test_placeholders_stand_for_the_run_its_day_and_its_job() -> None:
    assert filled("/out/{job}/{date}-{run}.jsonl", NAMES) == "/out/talk/2026-11-21-7.jsonl"
    assert placeholders_in("/out/{job}/{date}-{run}.jsonl") == {"job", "date", "run"}
    assert placeholders_in("/out/plain.jsonl") == frozenset()


def test_literal_braces_can_be_written() -> None:
    assert filled("/out/{{run}}.jsonl", NAMES) == "/out/{run}.jsonl"
    assert filled(escaped("/odd {folder}/") + "{run}", NAMES) == "/odd {folder}/7"


@pytest.mark.parametrize("path", ["{day}", "{}", "{0}", "{run!r}", "{run:04}", "{run.real}", "{run", "run}"])
def test_an_unknown_placeholder_is_refused_in_one_line(path: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*write a literal brace twice$"):
        placeholders_in(path)
