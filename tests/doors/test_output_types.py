"""Declared types of outputs: what they become in Arrow, which values fit, and that nothing is changed to fit."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from orchestrator.domain.errors import UsageError
from orchestrator.sinks import ParquetSink
from orchestrator.sinks.fitting import UnfitValue, fit
from orchestrator.sinks.output_schema import declared, schema_form
from orchestrator.sinks.shape import Mixed, Shape
from orchestrator.testing.assertions import assert_one_line
from orchestrator.testing.sinks import answers, contents, deliver

if TYPE_CHECKING:
    from pathlib import Path

# -- what is declared -------------------------------------------------------------------------------------------------


class Mood(StrEnum):
    GOOD = "good"
    BAD = "bad"


class Part(BaseModel):
    page: int
    parts: list[Part] = []


class Review(BaseModel):
    label: Mood
    score: float
    count: int | None
    sure: bool = True
    kind: Literal["a", "b"] | None = None
    tags: list[str] = Field(default_factory=list)
    totals: dict[str, int] = {}
    at: datetime | None = None
    day: date | None = None
    first: Part | None = None
    other: Any = None
    either: int | str = 0
    free: dict[str, Any] = {}


IN_ARROW = {
    "label": pa.string(),
    "score": pa.float64(),
    "count": pa.int64(),
    "sure": pa.bool_(),
    "kind": pa.string(),
    "tags": pa.list_(pa.field("item", pa.string(), nullable=False)),
    "totals": pa.json_(),
    "at": pa.timestamp("us", "UTC"),
    "day": pa.date32(),
    "first": pa.struct(
        [
            pa.field("page", pa.int64(), nullable=False),
            pa.field("parts", pa.list_(pa.field("item", pa.json_()))),  # a part within a part is JSON
        ]
    ),
    "other": pa.json_(),
    "either": pa.json_(),
    "free": pa.json_(),
}


def test_a_pydantic_model_becomes_a_struct_whose_required_fields_are_not_null() -> None:
    form = schema_form(Review)
    assert form == Review.model_json_schema()
    field = declared(form)
    assert (field.name, field.nullable) == ("output", False)
    assert {part.name: part.type for part in field.type} == IN_ARROW
    assert [part.name for part in field.type if not part.nullable] == ["label", "score"]


@pytest.mark.parametrize(
    ("schema", "kind", "nullable"),
    [
        ({"type": "string"}, pa.string(), False),
        ({"type": ["integer", "null"]}, pa.int64(), True),
        ({"type": ["integer", "string"]}, pa.json_(), False),
        ({"oneOf": [{"type": "number"}, {"type": "null"}]}, pa.float64(), True),
        ({"enum": ["a", "b", None]}, pa.string(), True),
        ({"enum": ["a", 1]}, pa.json_(), False),
        ({"const": True}, pa.bool_(), False),
        ({"type": "null"}, pa.null(), True),
        ({"type": "integer", "format": "int32"}, pa.int32(), False),
        ({"type": "array", "items": {"type": "number", "format": "float"}}, pa.list_(pa.float32()), False),
        ({"type": "array"}, pa.json_(), False),
        ({"type": "array", "prefixItems": [{"type": "string"}], "items": False}, pa.json_(), False),
        ({"type": "string", "format": "time"}, pa.time64("us"), False),
        ({"type": "string", "format": "email"}, pa.string(), False),
        ({"type": "string", "contentEncoding": "base64"}, pa.binary(), False),
        ({"allOf": [{"$ref": "#/$defs/a~1b"}], "$defs": {"a/b": {"type": "boolean"}}}, pa.bool_(), False),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}}, None, False),
        ({"properties": {"a": True}}, pa.struct([("a", pa.json_())]), False),
        ({"properties": {"a": True}, "additionalProperties": False}, pa.struct([("a", pa.json_())]), False),
        ({"properties": {"a": True}, "additionalProperties": True}, pa.json_(), False),
        ({"properties": {"a": True}, "additionalProperties": {"type": "string"}}, pa.json_(), False),
        ({"properties": {"a": True}, "patternProperties": {"^x": {"type": "string"}}}, pa.json_(), False),
        ({}, pa.json_(), False),
    ],
)
def test_a_json_schema_becomes_a_type(schema: dict[str, Any], kind: pa.DataType | None, nullable: bool) -> None:
    field = declared(schema_form(schema) or {})
    found = field.type
    if pa.types.is_list(found):  # the name and the nullability of items are not the point here
        found = pa.list_(found.value_type)
    assert (found, field.nullable) == (kind or pa.list_(pa.json_()), nullable)


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ("int", "is not a type: give a pydantic model, a JSON Schema, or an Arrow schema or type"),
        (int, "is not a type"),
        (pa.month_day_nano_interval(), "an output cannot be written as month_day_nano_interval"),
        (pa.schema([("a", pa.list_(pa.uuid()))]), "an output cannot be written as extension<arrow.uuid>"),
        ({"$ref": "#/$defs/missing"}, r"schema= cannot be used: the reference '#/\$defs/missing' leads nowhere"),
        ({"$ref": "https://example.org/schema.json"}, "leads outside the schema"),
        ({"anyOf": 5}, "schema= cannot be used"),
    ],
)
def test_what_declares_no_type_is_refused_when_the_job_is_written(schema: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says) as refusal:
        ParquetSink("out.parquet", schema=schema)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "schema",
    [Review, {"type": "string"}, pa.schema([("a", pa.decimal128(10, 2))]), pa.list_(pa.float32(), 3), pa.json_()],
)
def test_a_declaration_survives_json(schema: Any) -> None:
    sink = ParquetSink("out.parquet", schema=schema)
    again = ParquetSink("out.parquet", schema=json.loads(json.dumps(sink.schema)))
    assert again == sink
    assert declared(again.schema or {}).equals(declared(sink.schema or {}))


# -- which values fit -------------------------------------------------------------------------------------------------

US, NS = pa.timestamp("us"), pa.timestamp("ns")
UTC_US = pa.timestamp("us", "UTC")
STRUCT = pa.struct([pa.field("a", pa.int64(), nullable=False), ("b", pa.float32())])


@pytest.mark.parametrize(
    ("kind", "value", "written"),
    [
        (pa.int64(), 2**63 - 1, 2**63 - 1),
        (pa.int64(), 3.0, 3),
        (pa.uint64(), 2**64 - 1, 2**64 - 1),
        (pa.int8(), -128, -128),
        (pa.float64(), 2**53, 2.0**53),
        (pa.float64(), 3 * 2**60, 3.0 * 2**60),
        (pa.float64(), 1, 1.0),
        (pa.float32(), 0.1, 0.10000000149011612),
        (pa.float16(), 2048, 2048.0),
        (pa.bool_(), True, True),
        (pa.string(), "é", "é"),
        (pa.large_string(), "", ""),
        (pa.string_view(), "longer than twelve bytes", "longer than twelve bytes"),
        (pa.dictionary(pa.int32(), pa.string()), "a", "a"),
        (pa.decimal128(10, 2), "1.50", Decimal("1.50")),
        (pa.decimal128(10, 2), 0.1, Decimal("0.10")),
        (pa.decimal128(38, 0), 10**37, Decimal(10**37)),
        (pa.decimal256(60, 0), 10**50, Decimal(10**50)),
        (pa.binary(), "qg==", b"\xaa"),
        (pa.binary(1), "qg==", b"\xaa"),
        (pa.date32(), "2020-01-02", date(2020, 1, 2)),
        (pa.time64("us"), "03:04:05.000006", time(3, 4, 5, 6)),
        (pa.time32("s"), "03:04:05", time(3, 4, 5)),
        (US, "2020-01-02T03:04:05.000006", datetime(2020, 1, 2, 3, 4, 5, 6)),  # noqa: DTZ001 - without a zone
        (US, "2020-01-02T03:04:05,5", datetime(2020, 1, 2, 3, 4, 5, 500_000)),  # noqa: DTZ001 - without a zone
        (US, "20200102T030405", datetime(2020, 1, 2, 3, 4, 5)),  # noqa: DTZ001 - without a zone
        (UTC_US, "2020-01-02T03:04:05.123456+00:00:30", datetime(2020, 1, 2, 3, 3, 35, 123_456, UTC)),
        (pa.time64("us"), "03:04:05,5", time(3, 4, 5, 500_000)),
        (US, "2020-01-02 03:04", datetime(2020, 1, 2, 3, 4)),  # noqa: DTZ001 - without a zone
        (UTC_US, "2020-01-02T03:04:05.5+02:00", datetime(2020, 1, 2, 1, 4, 5, 500_000, UTC)),
        (UTC_US, "1969-12-31T23:59:59.999999Z", datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC)),
        (pa.timestamp("s"), "2020-01-02T03:04:05.000", datetime(2020, 1, 2, 3, 4, 5)),  # noqa: DTZ001 - without a zone
        (pa.duration("us"), 1.5, timedelta(seconds=1.5)),
        (pa.list_(pa.float32()), [0.5, 1, None], [0.5, 1.0, None]),
        (pa.list_(pa.float32(), 2), [0.5, 0.25], [0.5, 0.25]),
        (pa.large_list(pa.int64()), [1, None], [1, None]),
        (pa.list_view(pa.string()), ["a"], ["a"]),
        (pa.large_list_view(pa.string()), [], []),
        (STRUCT, {"a": 1}, {"a": 1, "b": None}),
        (pa.map_(pa.string(), pa.int64()), {"k": 1, "l": None}, [("k", 1), ("l", None)]),
        (pa.map_(pa.int64(), pa.list_(STRUCT)), [[1, [{"a": 1, "b": 2}]]], [(1, [{"a": 1, "b": 2.0}])]),
        (pa.json_(), {"any": [1, "thing"]}, '{"any":[1,"thing"]}'),
        (pa.list_(pa.json_()), ["a", None, 1], ['"a"', None, "1"]),
        (pa.null(), None, None),
    ],
)
def test_a_value_that_fits_is_written_exactly(kind: pa.DataType, value: object, written: object) -> None:
    column = fit(kind)
    assert pa.array([column.convert(value), None], column.type).to_pylist() == [written, None]


@pytest.mark.parametrize(
    ("kind", "value", "says"),
    [
        (pa.int64(), 2**63, " is 9223372036854775808, which is not exactly a value of type int64"),
        (pa.int64(), 1.5, " is 1.5, which"),
        (pa.int64(), 2.0**60, " is 1.15292150"),
        (pa.int64(), True, " is true"),
        (pa.int64(), "1", ' is "1"'),
        (pa.int8(), 128, " is 128"),
        (pa.uint8(), -1, " is -1"),
        (pa.float64(), 2**53 + 1, " is 9007199254740993, which is not exactly a value of type double"),
        (pa.float64(), False, " is false"),
        (pa.float64(), 10**400, " is 1000"),
        (pa.float16(), 2049, " is 2049"),
        (pa.float32(), 2**24 + 1, " is 16777217"),
        (pa.float32(), 1e39, r" is 1e\+?39"),
        (pa.float16(), 70000.0, " is 70000.0"),
        (pa.list_(pa.float32()), [0.5, 1e39], r"\[1\] is 1e\+?39"),
        (pa.string(), 1, " is 1, which is not exactly a value of type string"),
        (pa.bool_(), 1, " is 1"),
        (pa.decimal128(10, 2), "1.555", ' is "1.555"'),
        (pa.decimal128(3, 2), 123, " is 123"),
        (pa.decimal128(10, 2), "NaN", ' is "NaN"'),
        (pa.decimal128(10, 2), "x", ' is "x"'),
        (pa.binary(), "no base64!", " is "),
        (pa.binary(2), "qg==", " is "),
        (pa.date32(), "2020-13-01", " is "),
        (pa.date32(), 5, " is 5"),
        (pa.time32("s"), "03:04:05.5", ' is "03:04:05.5"'),
        (pa.time64("us"), "03:04:05Z", " is "),
        (US, "2020-01-02T03:04:05.0000001", " is "),
        (US, "2020-01-02T03:04:05,0000001", " is "),
        (NS, f"2020-01-02T03:04:05.{'0' * 40}1", " is "),
        (US, "20200102T030405.0000001", " is "),
        (US, "2020-01-02T03:04:05Z", " is "),
        (NS, "2300-01-02T03:04:05", " is "),
        (pa.duration("ns"), 1e10, " is "),
        (UTC_US, "2020-01-02T03:04:05", r' is "2020-01-02T03:04:05", .* timestamp\[us, tz=UTC\]'),
        (UTC_US, "tomorrow", " is "),
        (pa.duration("ms"), 0.0001, " is 0.0001"),
        (pa.list_(pa.int64()), {"a": 1}, " is an object, not a list"),
        (pa.list_(pa.int64(), 2), [1], " has 1 items, not 2"),
        (pa.list_(pa.field("item", pa.int64(), nullable=False)), [1, None], r"\[1\] is null"),
        (STRUCT, {"b": 1}, " lacks the field 'a'"),
        (STRUCT, {"a": 1, "c": 1}, " has the field 'c', which the schema lacks"),
        (STRUCT, {"a": None}, r"\.a is null"),
        (STRUCT, [1], " is a list, not an object"),
        (pa.struct([("l", pa.list_(STRUCT))]), {"l": [{"a": 1}, {"a": "x"}]}, r'^\.l\[1\]\.a is "x"'),
        (pa.map_(pa.string(), pa.int64()), {"k": "v"}, r'\["k"\] is "v"'),
        (pa.map_(pa.string(), pa.int64()), [[1]], " is a list, not an object or a list of pairs"),
        (pa.null(), 1, " is 1"),
        (pa.int64(), "x" * 500, r"x\.\.\., which"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_its_place(kind: pa.DataType, value: object, says: str) -> None:
    with pytest.raises(UnfitValue, match=says):
        fit(kind).convert(value)


# -- deliveries -------------------------------------------------------------------------------------------------------


def test_declared_types_hold_from_the_first_row_to_the_last(tmp_path: Path) -> None:
    sink = ParquetSink(
        tmp_path / "out.parquet", keep=["n"], schema=pa.schema([("score", pa.float64()), ("why", pa.string())])
    )
    first = {"id": 1, "n": 1, "output": {"score": 1}}
    deliver(sink, [first], [{"id": 2, "n": "x", "output": {"why": "b", "score": 0.5}}, {"id": 3, "output": None}])
    table = pq.read_table(tmp_path / "out.parquet")
    kind = pa.struct([("score", pa.float64()), ("why", pa.string())])
    assert table.schema.field("output") == pa.field("output", kind)
    assert table.to_pylist() == [
        {"id": 1, "n": "1", "output": {"score": 1.0, "why": None}},
        {"id": 2, "n": '"x"', "output": {"score": 0.5, "why": "b"}},
        {"id": 3, "n": None, "output": None},
    ]
    files = json.loads((tmp_path / "out.manifest.json").read_text())["files"]
    assert files["out.parquet"]["types"] == {"id": "int64", "n": "JSON as text", "output": str(kind)}


def test_an_output_that_does_not_fit_ends_the_delivery_and_changes_no_file(tmp_path: Path) -> None:
    deliver(ParquetSink(tmp_path / "out.parquet"), answers("old"))
    before = contents(tmp_path)
    sink = ParquetSink(tmp_path / "out.parquet", schema=Review)
    good = {"label": "good", "score": 1, "count": None, "free": {"x": [1]}}
    with pytest.raises(UsageError) as refusal:
        deliver(sink, answers(good, good), answers(good, good | {"score": "high"}))
    assert_one_line(
        refusal, "item '1': output.score is \"high\", which is not exactly a value of type double", "`parse`"
    )
    assert contents(tmp_path) == before
    deliver(sink, answers(good))
    (row,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert row["output"] == dict.fromkeys(Review.model_fields) | good | {"score": 1.0, "free": '{"x":[1]}'}


def test_more_words_than_a_dictionary_has_keys_for_end_the_delivery(tmp_path: Path) -> None:
    sink = ParquetSink(tmp_path / "out.parquet", schema=pa.dictionary(pa.int8(), pa.string()))
    deliver(sink, answers(*map(str, range(128))))
    assert len(pq.read_table(tmp_path / "out.parquet")) == 128
    before = contents(tmp_path)
    with pytest.raises(UsageError) as refusal:
        deliver(sink, answers(*map(str, range(129))))
    assert_one_line(refusal, "output cannot be written as dictionary", "declare another `schema`")
    assert contents(tmp_path) == before


scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    scalars | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300)
@given(st.lists(values, max_size=4) | st.lists(st.lists(scalars), max_size=4))
def test_a_type_that_was_found_takes_exactly_the_values_in_which_it_was_found(found: list[object]) -> None:
    shape = Shape()
    shape.see(found)
    try:
        kind = shape.arrow()
    except Mixed:
        assume(False)
    column = fit(kind)
    assert column.type == kind
    assert pa.array([column.convert(value) for value in found], kind) == pa.array(found, kind)


@settings(max_examples=300)
@given(values, st.sampled_from([pa.int64(), pa.float64(), pa.string(), pa.bool_(), STRUCT, pa.list_(pa.int32())]))
def test_any_value_is_either_written_exactly_or_refused(value: object, kind: pa.DataType) -> None:
    column = fit(kind)
    try:
        (written,) = pa.array([column.convert(value)], column.type).to_pylist()
    except UnfitValue:
        return
    if isinstance(value, dict) and isinstance(written, dict):
        value = dict.fromkeys(written) | value
    assert written == value
