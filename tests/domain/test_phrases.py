from __future__ import annotations

import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.phrases import size, visible, visible_json

ACTS = {"Cc", "Cs", "Zl", "Zp"}  # controls, halves of pairs, separators of lines


def test_control_characters_are_shown_as_escapes() -> None:
    said = "\x1b]52;c;QQ==\x07 \x9b2J \x7f \u202egnp.exe\u2069 a\nrun 9: finished\r\t\u2028 \ud83d"
    shown = r"\x1b]52;c;QQ==\x07 \x9b2J \x7f \u202egnp.exe\u2069 a\nrun 9: finished\r\t\u2028 \ud83d"
    assert visible(said) == shown


def test_all_other_characters_are_shown_unchanged() -> None:
    text = "Grüße, 你好 👩‍💻 [red]no markup[/red] :smile: \\x1b שלום"
    assert visible(text) == text


@given(st.text(st.characters()))
def test_visible_text_has_no_control_characters_and_no_line_ends(text: str) -> None:
    assert not {unicodedata.category(one) for one in visible(text)} & ACTS
    assert len(visible(text).splitlines()) <= 1


@given(st.dictionaries(st.text(), st.text(), max_size=3))
def test_json_with_escaped_control_characters_is_equivalent(value: dict[str, str]) -> None:
    shown = visible_json(json.dumps(value, ensure_ascii=False, indent=2))
    assert json.loads(shown) == value
    assert not {unicodedata.category(one) for one in shown.replace("\n", "")} & ACTS


def test_a_small_size_is_not_rounded_to_nothing() -> None:
    assert [size(number) for number in (1, 999, 2100, 5_000_000)] == ["1 byte", "999 bytes", "2.1 kB", "5.0 MB"]
