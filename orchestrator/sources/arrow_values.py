"""Arrow's values as JSON can express them; a value that cannot be expressed becomes null."""

from __future__ import annotations

import re
from base64 import b64encode
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from orchestrator import exact_json

if TYPE_CHECKING:
    from collections.abc import Callable

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_NO_FRACTION = re.compile(r"\.0+\Z")
_OUT_OF_RANGE = "<value"  # how Arrow's text of a moment begins that it cannot write


def values_of(array: pa.Array) -> list[object]:
    """Return the values: dates and times as ISO text, decimals as text, bytes as base64, durations as seconds.

    Nanoseconds are truncated to microseconds. A date beyond the year 9999 becomes text too, a moment that cannot be
    written becomes None, and bytes in a text that are not UTF-8 become U+FFFD.
    """
    try:
        values = array.cast(_in_microseconds(array.type), safe=False).to_pylist()
    except (pa.ArrowException, ValueError, OverflowError):
        values = _one_by_one(array)
    return list(exact_json.loads(exact_json.dumps(values, default=_plain)))


def is_float32(kind: pa.DataType) -> bool:
    """Whether the type is 32-bit floats, or lists of them."""
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_float32(kind))


def iso_interval(months: int, days: int, nanoseconds: int) -> str:
    """Return a calendar interval in ISO 8601 form: P1M2DT3.5S."""
    seconds = Decimal(nanoseconds).scaleb(-9).normalize()
    parts = [f"{months}M" if months else "", f"{days}D" if days else "", f"T{seconds:f}S" if nanoseconds else ""]
    return f"P{''.join(parts) or 'T0S'}"


def retyped(kind: pa.DataType, leaf: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """Return the type with each of its leaves replaced."""
    within = partial(retyped, leaf=leaf)
    match kind:
        case pa.DictionaryType():
            made = within(kind.value_type)
        case pa.MapType():
            made = pa.map_(within(kind.key_type), within(kind.item_type))
        case pa.FixedSizeListType():
            made = pa.list_(within(kind.value_type), kind.list_size)
        case pa.LargeListType():
            made = pa.large_list(within(kind.value_type))
        case pa.ListType():
            made = pa.list_(within(kind.value_type))
        case pa.StructType():
            made = pa.struct([field.with_type(within(field.type)) for field in kind])
        case _:
            made = leaf(kind)
    return made


def _in_microseconds(kind: pa.DataType) -> pa.DataType:
    """Return the type with microseconds in place of nanoseconds, the finest unit of Python's own types."""
    return retyped(kind, _microseconds)


def _microseconds(kind: pa.DataType) -> pa.DataType:
    match kind:
        case pa.TimestampType(unit="ns"):
            return pa.timestamp("us", kind.tz)
        case pa.DurationType(unit="ns"):
            return pa.duration("us")
        case pa.Time64Type(unit="ns"):
            return pa.time64("us")
    return kind


def _one_by_one(array: pa.Array) -> list[object]:
    """Return the values one by one, for arrays whose values do not all fit Python's types."""
    match kind := array.type:
        case pa.DictionaryType():
            words = _one_by_one(array.dictionary)  # Arrow itself does not decode every type
            values = [None if index is None else words[index] for index in array.indices.to_pylist()]
        case pa.BaseExtensionType():
            values = _one_by_one(array.storage)
        case pa.StructType():
            values = _objects(array)
        case pa.MapType():
            values = [_pairs(scalar.values) if scalar.is_valid else None for scalar in array]
        case _ if pa.types.is_nested(kind):  # lists of every kind
            values = [_one_by_one(scalar.values) if scalar.is_valid else None for scalar in array]
        case pa.TimestampType():
            values = _moments(array)
        case _:
            finest = _in_microseconds(kind)
            values = [
                _value(scalar, partial(_written, scalar))
                for scalar in (array if finest == kind else array.cast(finest, safe=False))
            ]
    return values


def _objects(array: pa.StructArray) -> list[object]:
    names = [field.name for field in array.type]
    fields = [_one_by_one(field) for field in array.flatten()]
    there = array.is_valid().to_pylist()
    return [dict(zip(names, row, strict=True)) if valid else None for valid, *row in zip(there, *fields, strict=True)]


def _pairs(entries: pa.Array) -> list[object]:
    keys, items = map(_one_by_one, entries.flatten())
    return [list(pair) for pair in zip(keys, items, strict=True)]


def _moments(array: pa.Array) -> list[object]:
    """Return the moments, in UTC if the time zone is not known here or a moment is beyond Python's years."""
    kind = array.type
    finest = pa.timestamp("us" if kind.unit == "ns" else kind.unit, kind.tz)
    zone = "" if kind.tz is None else "+00:00"
    in_utc = array.cast(pa.timestamp(finest.unit, kind.tz and "UTC"), safe=False)

    def written(scalar: pa.Scalar) -> str | None:
        text = _text(scalar)
        return text and _NO_FRACTION.sub("", text.removesuffix("Z")).replace(" ", "T") + zone

    moments = zip(array.cast(finest, safe=False), in_utc, strict=True)
    return [_value(scalar, partial(_value, other, partial(written, other))) for scalar, other in moments]


def _value(scalar: pa.Scalar, otherwise: Callable[[], object]) -> object:
    try:
        return scalar.as_py()
    except (pa.ArrowException, ValueError, OverflowError):
        return otherwise()


def _written(scalar: pa.Scalar) -> object:
    """Return a value for a scalar that Python has no type for."""
    if isinstance(scalar.type, pa.DurationType):
        return scalar.value / _PER_SECOND[scalar.type.unit]
    if pa.types.is_date(scalar.type):
        return _text(scalar)
    if pa.types.is_string(scalar.type) or pa.types.is_large_string(scalar.type) or pa.types.is_string_view(scalar.type):
        return scalar.as_buffer().to_pybytes().decode(errors="replace")
    return None


def _text(scalar: pa.Scalar) -> str | None:
    text = str(scalar.cast(pa.string()))
    return None if text.startswith(_OUT_OF_RANGE) else text


def _plain(value: object) -> object:
    """Return a value that orjson can write in place of one that it cannot."""
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, pa.MonthDayNano):
        return iso_interval(*value)
    return str(value)  # a decimal
