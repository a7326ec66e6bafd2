from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import exact_json

WIDE = 12345678901234567890123


@pytest.mark.parametrize(
    "text",
    [
        "12345678901234567890123",
        "-12345678901234567890123",
        "18446744073709551616",  # 2**64
        "-9223372036854775809",  # -(2**63) - 1
        '{"a": [{"b": 99999999999999999999}, -99999999999999999999], "c": 0.1, "d": "\\u00e9"}',
        "[0.00000000000000000000001, 18446744073709551616, 1.00000000000000000000001e3]",
    ],
)
def test_integers_of_any_length_are_exact(text: str) -> None:
    expected = json.loads(text)
    for content in (text, text.encode()):
        found = exact_json.loads(content)
        assert found == expected
        assert json.dumps(found) == json.dumps(expected)  # 1e22 == 10**22, but is not an integer
    assert exact_json.loads(exact_json.dumps(expected)) == expected


@pytest.mark.parametrize(
    "text", ["[18446744073709551615, -9223372036854775808]", "1e22", '"1234567890123456789012345"']
)
def test_all_other_json_is_unchanged(text: str) -> None:
    found = exact_json.loads(text)
    assert found == json.loads(text)
    assert type(found) is type(json.loads(text))


@pytest.mark.parametrize(
    "text",
    [
        "1e400",
        "-1e400",
        "NaN",
        "[12345678901234567890123, NaN]",
        "1" * 400,
        '["\\ud800", 12345678901234567890123]',
        "{",
    ],
)
def test_values_that_json_cannot_keep_are_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        exact_json.loads(text)


_TEXTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**66), 2**66)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values, max_size=3),
    max_leaves=6,
).map(json.dumps) | st.sampled_from(
    [
        "-0",
        "1E+2",
        "0.10",
        '"\\u0041\\/"',
        '{"a": 1, "a": 2}',
        " [1 , 2] ",
        "[" * 1024 + "]" * 1024,
        "1e-400",
        '"]"',
        '","',
    ]
)


@given(st.lists(_TEXTS, max_size=8))
def test_many_texts_have_the_values_that_each_has_alone(texts: list[str]) -> None:
    found, expected = exact_json.loads_all(texts), [exact_json.loads(text) for text in texts]
    assert [repr(value) for value in found] == [repr(value) for value in expected]  # -0.0 == 0, 1e22 == 10**22


@pytest.mark.parametrize("texts", [["1", "{"], ["[1", "2]"], ["1,2"], [""]])
def test_one_text_that_is_not_valid_among_many_is_rejected(texts: list[str]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        exact_json.loads_all(texts)


class Odd:
    """An object that JSON cannot represent."""


@pytest.mark.parametrize("value", [[WIDE, Odd()], (Odd(),), {"a": {1: WIDE}}])
def test_objects_without_a_json_form_are_refused(value: object) -> None:
    with pytest.raises(TypeError):
        exact_json.dumps(value)


def test_long_integers_are_written_at_any_place() -> None:
    def default(value: Any) -> object:
        return {"odd": WIDE} if isinstance(value, Odd) else None

    written = exact_json.dumps({"a": (WIDE, [True, -WIDE]), "b": Odd()}, default)
    assert json.loads(written) == {"a": [WIDE, [True, -WIDE]], "b": {"odd": WIDE}}


def test_a_deeply_nested_long_integer_is_an_error_and_not_a_crash() -> None:
    deep: object = [WIDE]
    for _ in range(100_000):
        deep = [WIDE, deep]
    with pytest.raises(TypeError):
        exact_json.dumps(deep)
