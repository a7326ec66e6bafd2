from __future__ import annotations

import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.phrases import visible, visible_json

ACTS = {"Cc", "Cs", "Zl", "Zp"}  # controls, halves of pairs, separators of lines


def test_what_would_act_is_shown_as_an_escape() -> None:
    said = "\x1b]52;c;QQ==\x07 \x9b2J \x7f \u202egnp.exe\u2069 a\nrun 9: finished\r\t\u2028 \ud83d"
    shown = r"\x1b]52;c;QQ==\x07 \x9b2J \x7f \u202egnp.exe\u2069 a\nrun 9: finished\r\t\u2028 \ud83d"
    assert visible(said) == shown


def test_everything_else_is_shown_as_it_is() -> None:
    text = "Grüße, 你好 👩‍💻 [red]no markup[/red] :smile: \\x1b שלום"
    assert visible(text) == text


@given(st.text(st.characters()))
def test_nothing_acts_and_nothing_ends_the_line(text: str) -> None:
    assert not {unicodedata.category(one) for one in visible(text)} & ACTS
    assert len(visible(text).splitlines()) <= 1


@given(st.dictionaries(st.text(), st.text(), max_size=3))
def test_json_in_which_nothing_acts_means_the_same(value: dict[str, str]) -> None:
    shown = visible_json(json.dumps(value, ensure_ascii=False, indent=2))
    assert json.loads(shown) == value
    assert not {unicodedata.category(one) for one in shown.replace("\n", "")} & ACTS
