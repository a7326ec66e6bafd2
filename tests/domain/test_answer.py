from __future__ import annotations

from orchestrator.domain.answer import Note, by_name, input_cut_to, noted_words


def test_notes_of_cut_inputs_name_the_limit() -> None:
    noted = {Note.CUT: 2, input_cut_to(512): 1200, input_cut_to(64): 1, Note.INPUT_CUT: 3}
    assert noted_words(noted, 7) == [
        "2 answers were cut at their token limit",
        "1,200 inputs were cut to 512 tokens",
        "1 input was cut to 64 tokens",
        "3 inputs were cut to what the model takes",
        "list them: orchestrator items 7 --noted",
    ]
    assert by_name(noted) == {"cut": 2, "input_cut": 1204}
    assert noted_words({}, 7) == []
