from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pytest

from orchestrator.domain.item import File
from orchestrator.domain.request import MissingColumn, Renderer, drawn_by_chance

FILE = File("/a.png", "0" * 64, "image/png")
ROW = {
    "text": "hello",
    "n": 3,
    "tags": ["a", "b"],
    "none": None,
    "file": FILE,
    "meta": {"lang": "fr", "n": 5, "null": None},
}
MESSAGES = [{"role": "user", "content": "hé"}, {"role": "assistant", "content": None}]


@dataclass
class Point:
    x: int
    y: list[int]


VALUES = {"point": Point(1, [2]), "pair": (1, 2.5), "array": np.array([[1, 2], [3, 4]]), "bytes": b"abc", "set": {1}}
VALUES |= {"when": datetime(2026, 1, 2, 3, 4, tzinfo=UTC), "price": Decimal("1.10"), "wide": 2**70, "yes": True}
VALUES |= {"messages": MESSAGES, "mixed": [Decimal("1.10"), datetime(2026, 1, 2, tzinfo=UTC), np.int64(3), {"é": None}]}


@pytest.mark.parametrize(
    ("template", "body"),
    [
        ("{text}", "hello"),
        ("{n}", "3"),
        ("Say {text}, {n} times, in {meta[lang]}: {{}}", "Say hello, 3 times, in fr: {}"),
        ("{n:03d}", "003"),
        ("constant", "constant"),
        ("{file}", FILE),
        ({"inputs": "{text}", "parameters": {"k": "{n}"}}, {"inputs": "hello", "parameters": {"k": 3}}),
        ({"messages": [{"role": "user", "content": "{text}!"}]}, {"messages": [{"role": "user", "content": "hello!"}]}),
        ({"tags": "{tags}", "fixed": 7, "no": None}, {"tags": ["a", "b"], "fixed": 7, "no": None}),
        (lambda row: {"inputs": row["text"].upper()}, {"inputs": "HELLO"}),
    ],
)
def test_a_request_is_made_from_a_row(template: object, body: object) -> None:
    assert Renderer(template)(ROW) == body


@pytest.mark.parametrize(
    ("template", "body"),
    [
        ("{messages}", MESSAGES),
        ("{tags}", ["a", "b"]),
        ("{meta}", {"lang": "fr", "n": 5, "null": None}),
        ({"lang": "{meta[lang]}", "n": "{meta[n]}", "y": "{point.y}"}, {"lang": "fr", "n": 5, "y": [2]}),
        ("{tags[0]}", "a"),
        ("{point.y}", [2]),
        ("{meta[n]}", "5"),  # all of a request that is a number is a prompt
        ("{wide}", str(2**70)),
        ("{yes}", "True"),
    ],
)
def test_a_template_that_is_one_placeholder_is_the_value(template: object, body: object) -> None:
    assert Renderer(template)(ROW | VALUES) == body


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("Label: {messages}", 'Label: [{"role": "user", "content": "hé"}, {"role": "assistant", "content": null}]'),
        ("{tags} {meta}", '["a", "b"] {"lang": "fr", "n": 5, "null": null}'),
        ("in {point.y} of {point}", 'in [2] of {"x": 1, "y": [2]}'),
        ("{pair}!", "[1, 2.5]!"),
        ("{array}!", "[[1, 2], [3, 4]]!"),
        ("{mixed}!", '["1.10", "2026-01-02T00:00:00+00:00", 3, {"é": null}]!'),
        ("{when}, {price}, {wide}, {yes}", f"2026-01-02 03:04:00+00:00, 1.10, {2**70}, True"),
        ("{text!r} {n:>3} {price:.1f} {n:{n}}", "'hello'   3 1.1   3"),
    ],
)
def test_a_list_or_object_within_a_text_is_written_as_json(template: str, text: str) -> None:
    assert Renderer(template)(ROW | VALUES) == text


@pytest.mark.parametrize(
    "template", ["{bytes}!", "{set}!", "{file}!", "{text.upper}!", "{meta:>10}", {"a": "b {bytes}"}]
)
def test_a_value_that_is_neither_text_nor_json_is_refused_in_a_text(template: object) -> None:
    with pytest.raises(TypeError, match=r"cannot be written in a text|unsupported format"):
        Renderer(template)(ROW | VALUES)


@pytest.mark.parametrize(
    ("template", "column"),
    [
        ("{txet}", "txet"),
        ({"a": ["{none}"]}, "none"),
        ("{meta[null]}", r"meta\[null\]"),
        ("in {meta[nul]}", r"meta\[nul\]"),
        ({"a": "{tags[7]}"}, r"tags\[7\]"),
        ("{point.z}", r"point\.z"),
    ],
)
def test_a_column_that_is_missing_or_null_is_named(template: object, column: str) -> None:
    with pytest.raises(MissingColumn, match=f"column '{column}'"):
        Renderer(template)(ROW | VALUES)


@pytest.mark.parametrize("template", ["{}", "{0}", "{text"])
def test_a_template_that_cannot_work_is_refused_at_once(template: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Renderer(template)


@pytest.mark.parametrize(
    ("fields", "by_chance"),
    [
        ({"temperature": 0.7}, True),
        ({"temperature": 0}, False),
        ({"temperature": None}, False),
        ({"temperature": "hot"}, False),
        ({"do_sample": True}, True),
        ({"do_sample": "yes"}, False),
        ({"inputs": "x", "parameters": {"do_sample": True}}, True),
        ({"inputs": "x", "parameters": {"seed": 7}}, False),
        ("text", False),
    ],
)
def test_an_answer_is_random_if_the_parameters_ask_for_sampling(fields: object, *, by_chance: bool) -> None:
    assert drawn_by_chance(fields) == by_chance


def test_a_conversion_to_text_changes_nothing() -> None:
    row = {"list": [1, None], "object": {"a": True}, "text": "x", "number": 1.5}
    render = Renderer("{list!s} {object!s} {text!s} {number!s}")
    assert render(row) == '[1, null] {"a": true} x 1.5'
