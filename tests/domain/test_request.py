from __future__ import annotations

import pytest

from orchestrator.domain.item import File
from orchestrator.domain.request import MissingColumn, Renderer, drawn_by_chance

FILE = File("/a.png", "0" * 64, "image/png")
ROW = {"text": "hello", "n": 3, "tags": ["a", "b"], "none": None, "file": FILE, "meta": {"lang": "fr"}}


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


@pytest.mark.parametrize(("template", "column"), [("{txet}", "txet"), ({"a": ["{none}"]}, "none")])
def test_a_column_that_is_missing_or_null_is_named(template: object, column: str) -> None:
    with pytest.raises(MissingColumn, match=f"column '{column}'"):
        Renderer(template)(ROW)


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
def test_an_answer_is_drawn_by_chance_where_the_parameters_ask_for_that(fields: object, *, by_chance: bool) -> None:
    assert drawn_by_chance(fields) == by_chance
