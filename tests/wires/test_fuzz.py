"""Whatever a server sends with status 200: a wire returns an entry for each request, taken from the body, or fails."""

from __future__ import annotations

import base64
import binascii
import re
import struct
from typing import TYPE_CHECKING, Any

import orjson
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from yarl import URL

from orchestrator.domain.answer import Answer
from orchestrator.domain.errors import RequestFailed
from orchestrator.wires import HuggingFaceWire, OpenAIChatWire, OpenAIEmbeddingsWire, OpenAIResponsesWire
from orchestrator.wires.extract import found_json
from tests.wires.test_conformance import CASES, Case, every_wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.wires import Wire


class Fits(BaseModel):
    a: int


scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)
# words of the formats, so that generated values come near them
keys = st.sampled_from(
    [
        "choices",
        "message",
        "content",
        "text",
        "index",
        "data",
        "embedding",
        "error",
        "output",
        "type",
        "status",
        "score",
        "label",
        "inputs",
        "generated_text",
        "finish_reason",
        "refusal",
        "usage",
        "prompt_tokens",
        "results",
        "relevance_score",
        "details",
        "prefill",
        "value",
    ]
)
near = st.recursive(
    scalars | st.sampled_from(["output_text", "message", "length", "completed", "AACAPw==", '{"a": 1}', 0, 1]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=20,
)
cases = st.sampled_from(list(CASES.values()))
JSON_WIRES = [OpenAIChatWire("m", extract="json"), OpenAIChatWire("m", response_format=Fits)]
FITTING_RESPONSES = OpenAIResponsesWire("m", response_format=Fits)
wires = cases.map(lambda case: case.wire) | st.sampled_from([*JSON_WIRES, FITTING_RESPONSES])
counts = st.integers(1, 3)
BASE = URL("http://h/")


def unpacked(wire: Wire, content: bytes, count: int) -> list[object]:
    """Return the values. Fails on any exception but `RequestFailed`, and on a wrong number of entries."""
    if not (wire.takes_lists and (not isinstance(wire, HuggingFaceWire) or wire.lists)):
        count = 1
    try:
        entries = wire.unpack(content, count)
    except RequestFailed:
        return []
    assert len(entries) == count
    values = [entry.value if isinstance(entry, Answer) else entry for entry in entries]
    return [value for value in values if not isinstance(value, RequestFailed)]


def leaves(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for entry in value:
            yield from leaves(entry)
    else:
        yield value


def given_by(wire: Wire, content: bytes) -> set[tuple[type, object]]:
    """Return the parts from which a value may be built."""
    known = list(leaves(orjson.loads(content)))
    texts = [leaf for leaf in known if isinstance(leaf, str)]
    if isinstance(wire, OpenAIEmbeddingsWire):
        for text in texts:
            try:
                raw = base64.b64decode(text, validate=True)
            except (binascii.Error, ValueError):
                continue
            known += struct.unpack(f"<{len(raw) // 4}f", raw[: len(raw) // 4 * 4])
    if wire in JSON_WIRES:
        for text in texts:
            known += leaves(found_json(text))
            known += leaves(orjson.loads(text)) if text == '{"a": 1}' else []
    return {(type(leaf), leaf) for leaf in known}


def check(wire: Wire, content: bytes, count: int) -> None:
    for value in unpacked(wire, content, count):
        if wire == FITTING_RESPONSES:  # JSON inside a text made of parts
            Fits.model_validate(value)
            continue
        known = given_by(wire, content)
        if isinstance(wire, OpenAIResponsesWire):  # a text made of parts
            parts = "|".join(re.escape(str(text)) for kind, text in known if kind is str)
            assert re.fullmatch(f"(?:{parts})*", str(value))
            continue
        assert {(type(leaf), leaf) for leaf in leaves(value)} <= known


@given(wire=wires, content=st.binary(max_size=200) | st.text().map(str.encode), count=counts)
def test_any_bytes_are_an_answer_or_a_failure(wire: Wire, content: bytes, count: int) -> None:
    check(wire, content, count)


@given(wire=wires, document=documents | near, count=counts)
def test_any_json_is_an_answer_or_a_failure(wire: Wire, document: object, count: int) -> None:
    check(wire, orjson.dumps(document), count)


@given(wire=wires, content=near.map(orjson.dumps), cut=st.integers(0, 400), count=counts)
def test_any_truncated_json_is_an_answer_or_a_failure(wire: Wire, content: bytes, cut: int, count: int) -> None:
    check(wire, content[:cut], count)


@st.composite
def spoilt(draw: st.DrawFn, case: Case) -> bytes:
    """Return a correct answer in which one value is changed, missing, or duplicated."""
    body: Any = orjson.loads(honest_answer(case, draw(st.integers(0, len(case.requests) - 1))))
    whole = [body]
    place: Any = whole
    step: Any = 0
    while isinstance(place[step], list | dict) and place[step] and draw(st.booleans() | st.just(value=True)):
        place = place[step]
        step = draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
    match draw(st.sampled_from(["other", "missing", "twice"])):
        case "missing" if place is not whole:
            del place[step]
        case "twice" if isinstance(place, list) and place is not whole:
            place.append(place[step])
        case _:
            place[step] = draw(near)
    return orjson.dumps(whole[0])


def honest_answer(case: Case, which: int) -> bytes:
    """Return the correct answer to one request without a server: handlers are functions."""
    packing = case.wire.pack([orjson.dumps(case.requests[which])])
    try:
        packing.send(None)
    except StopIteration as packed:
        body = orjson.loads(packed.value.content)
    else:
        raise AssertionError("packing waits for something")
    route = "/" if isinstance(case.wire, HuggingFaceWire) else case.wire.url(BASE).path
    return orjson.dumps(case.routes[route](body))


@every_wire
@given(data=st.data(), count=counts)
def test_any_damaged_answer_is_an_answer_or_a_failure(case: Case, data: st.DataObject, count: int) -> None:
    check(case.wire, data.draw(spoilt(case)), count)


@given(
    value=st.dictionaries(st.text(), documents, max_size=3) | st.lists(documents, max_size=3),
    before=st.text(st.characters(exclude_characters="[{`", codec="utf-8")),
    after=st.text(st.characters(exclude_characters="[{`", codec="utf-8")),
    fence=st.booleans(),
)
def test_json_is_found_inside_any_other_text(value: object, before: str, after: str, *, fence: bool) -> None:
    json = orjson.dumps(value).decode()
    text = f"{before}\n```json\n{json}\n```\n{after}" if fence and "```" not in json else f"{before}{json}{after}"
    assert found_json(text) == orjson.loads(json)


@given(st.text(st.sampled_from('[]{}":,`\n\\ud8a1eN-.') | st.characters()))
def test_any_text_has_json_in_it_or_none(text: str) -> None:
    found = found_json(text)
    assert found is None or isinstance(found, list | dict)
