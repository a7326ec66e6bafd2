"""Values of a declared Arrow type from JSON values. What does not fit exactly is refused, and nothing is guessed."""

from __future__ import annotations

import math
import re
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa

from orchestrator import exact_json

Convert = Callable[[Any], object]
_LISTS = (pa.ListType, pa.LargeListType, pa.FixedSizeListType, pa.ListViewType, pa.LargeListViewType)
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_MOST = {16: 65504.0, 32: (2 - 2**-23) * 2.0**127, 64: math.inf}  # by width in bits
_DIGITS = {16: 11, 32: 24, 64: 53}  # of the mantissa: whole numbers with more bits may not be representable
_SECONDS = re.compile(r"((?:.{11})?\d\d:\d\d:\d\d)[.,](\d+)(.*)")  # a moment or a time, its fraction, its offset
_SHOWN = 60  # characters of a value that does not fit
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - the epoch of columns without a time zone, too


class UnfitValue(Exception):
    """A value does not fit; `where` is its path within the output, as in `.labels[3].score`."""

    def __init__(self, why: str, where: str = "") -> None:
        super().__init__(f"{where}{why}")
        self.why = why
        self.where = where


@dataclass(frozen=True, slots=True)
class Fit:
    """How values come into a column: its type as written, and the function that makes what Arrow accepts for it."""

    type: pa.DataType
    convert: Convert


def fit(kind: pa.DataType, *, nullable: bool = True) -> Fit:
    """Return how values come into a column of this type. Raises `ValueError` if an output cannot have the type.

    Floats take the nearest value of their width; whole numbers must be exact in them. JSON (`pa.json_()`), which may be
    anything, is written as text. Bytes are base64, dates and times ISO 8601, durations seconds, maps objects or pairs.
    """
    found = _fit(kind)

    def convert(value: object) -> object:
        if value is None:
            if nullable:
                return None
            raise UnfitValue(" is null")
        return found.convert(value)

    return Fit(found.type, convert)


def _fit(kind: pa.DataType) -> Fit:
    match kind:
        case pa.StructType():
            return _struct(kind)
        case pa.MapType():
            return _map(kind)
        case pa.DictionaryType():
            return Fit(kind, fit(kind.value_type, nullable=False).convert)
        case pa.JsonType():
            return Fit(pa.string(), lambda value: exact_json.dumps(value).decode())
    if isinstance(kind, _LISTS):
        return _list(kind)
    convert = _scalar(kind)
    if convert is None:
        raise ValueError(f"an output cannot be written as {kind}")
    return Fit(kind, _refusing(kind, convert))


def _refusing(kind: pa.DataType, convert: Convert) -> Convert:
    def refusing(value: object) -> object:
        try:
            return convert(value)
        except (TypeError, ValueError, OverflowError, InvalidOperation, pa.ArrowException) as failure:
            text = exact_json.dumps(value).decode()
            shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
            raise UnfitValue(f" is {shown}, which is not exactly a value of type {kind}") from failure

    return refusing


# -- nested types ------------------------------------------------------------------------------------------------------


def _struct(kind: pa.StructType) -> Fit:
    fits = {field.name: fit(field.type, nullable=field.nullable) for field in kind}
    required = [field.name for field in kind if not field.nullable]

    def convert(value: object) -> object:
        if not isinstance(value, dict):
            raise UnfitValue(f" is {_noun(value)}, not an object")
        if unknown := value.keys() - fits.keys():
            raise UnfitValue(f" has the field {min(unknown)!r}, which the schema lacks")
        if missing := next((name for name in required if name not in value), None):
            raise UnfitValue(f" lacks the field {missing!r}")
        return {name: _within(f".{name}", fits[name].convert, part) for name, part in value.items()}

    return Fit(pa.struct([field.with_type(fits[field.name].type) for field in kind]), convert)


def _list(kind: Any) -> Fit:
    item = fit(kind.value_type, nullable=kind.value_field.nullable)
    field = kind.value_field.with_type(item.type)
    plain = _plain_items(kind.value_type)
    size = kind.list_size if isinstance(kind, pa.FixedSizeListType) else None

    def convert(value: object) -> object:
        if not isinstance(value, list):
            raise UnfitValue(f" is {_noun(value)}, not a list")
        if size is not None and len(value) != size:
            raise UnfitValue(f" has {len(value)} items, not {size}")
        if plain(value):
            return value
        return [_within(f"[{index}]", item.convert, part) for index, part in enumerate(value)]

    return Fit(_listed(kind, field), convert)


def _listed(kind: Any, field: pa.Field) -> pa.DataType:
    match kind:
        case pa.FixedSizeListType():
            return pa.list_(field, kind.list_size)
        case pa.LargeListType():
            return pa.large_list(field)
        case pa.ListViewType():
            return pa.list_view(field)
        case pa.LargeListViewType():
            return pa.large_list_view(field)
    return pa.list_(field)


def _plain_items(kind: pa.DataType) -> Callable[[list[object]], bool]:
    """Return whether all items fit as they are, at the speed of C: an embedding is hundreds of values."""
    if pa.types.is_floating(kind):
        most = _MOST[kind.bit_width]
        return lambda items: set(map(type, items)) == {float} and max(map(abs, items)) <= most  # type: ignore[arg-type]  # floats
    if pa.types.is_string(kind):
        return lambda items: set(map(type, items)) <= {str}
    return lambda items: not items


def _map(kind: pa.MapType) -> Fit:
    key, item = fit(kind.key_type, nullable=False), fit(kind.item_type, nullable=kind.item_field.nullable)

    def convert(value: object) -> object:
        pairs = list(value.items()) if isinstance(value, dict) else value
        if not isinstance(pairs, list) or any(not isinstance(pair, list | tuple) or len(pair) != 2 for pair in pairs):
            raise UnfitValue(f" is {_noun(value)}, not an object or a list of pairs")
        where = [f"[{exact_json.dumps(name).decode()}]" for name, _ in pairs]
        return [
            (_within(at, key.convert, name), _within(at, item.convert, part))
            for at, (name, part) in zip(where, pairs, strict=True)
        ]

    return Fit(pa.map_(key.type, item.type), convert)


def _within(where: str, convert: Convert, value: object) -> object:
    try:
        return convert(value)
    except UnfitValue as unfit:
        raise UnfitValue(unfit.why, where + unfit.where) from unfit.__cause__


def _noun(value: object) -> str:
    nouns = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return nouns.get(type(value), "null")


# -- scalars: each converter raises one of the errors that `_refusing` translates --------------------------------------


def _scalar(kind: pa.DataType) -> Convert | None:
    return next((make(kind) for tests, make in _SCALARS if any(test(kind) for test in tests)), None)


def _is(expected: type) -> Convert:
    def same(value: object) -> object:
        if type(value) is not expected:
            raise TypeError
        return value

    return same


def _whole(kind: pa.DataType) -> Convert:
    signed = pa.types.is_signed_integer(kind)
    lowest = -(2 ** (kind.bit_width - 1)) if signed else 0
    highest = 2 ** (kind.bit_width - signed) - 1

    def whole(value: object) -> int:
        if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:  # as 1.0, which JSON Schema allows
            value = int(value)
        if type(value) is not int or not lowest <= value <= highest:
            raise ValueError
        return value

    return whole


def _float(width: int) -> Convert:
    def floating(value: object) -> float:
        if type(value) is int:
            bits = abs(value)
            if bits and (bits // (bits & -bits)).bit_length() > _DIGITS[width]:
                raise ValueError
            value = float(value)
        if type(value) is not float or abs(value) > _MOST[width]:
            raise ValueError
        return value

    return floating


def _number(value: object) -> str:
    if type(value) is int or type(value) is float:
        return repr(value)
    raise TypeError


def _number_or_text(value: object) -> str:
    return value if isinstance(value, str) else _number(value)


def _bytes(value: object) -> bytes:
    if not isinstance(value, str):
        raise TypeError
    return b64decode(value, validate=True)


def _moment(text: str, unit: str, *, zoned: bool) -> int:
    """Return the units since the epoch; a column with a time zone takes moments with one, any other those without."""
    whole, fraction = _without_fraction(text, unit)
    moment = datetime.fromisoformat(whole)
    offset = moment.utcoffset()
    if (offset is not None) != zoned:
        raise ValueError
    since = moment.replace(tzinfo=None) - (offset or timedelta()) - _EPOCH
    units = (since.days * 86400 + since.seconds) * _PER_SECOND[unit] + fraction
    if not -(2**63) <= units < 2**63:
        raise OverflowError
    return units


def _time(text: str, unit: str) -> int:
    whole, fraction = _without_fraction(text, unit)
    at = time.fromisoformat(whole)
    if at.tzinfo is not None:
        raise ValueError
    return (at.hour * 3600 + at.minute * 60 + at.second) * _PER_SECOND[unit] + fraction


def _without_fraction(text: str, unit: str) -> tuple[str, int]:
    """Return the text without its fraction of a second, of which Python would keep six digits, and that in units."""
    found = _SECONDS.fullmatch(text)
    whole, digits = (found[1] + found[3], found[2].rstrip("0")) if found else (text, "")
    places = len(str(_PER_SECOND[unit])) - 1
    if len(digits) > places or "." in whole or "," in whole:
        raise ValueError
    return whole, int(digits.ljust(places, "0") or 0)


def _span(seconds: float, unit: str) -> int:
    units = Decimal(_number(seconds)) * _PER_SECOND[unit]
    if units != int(units) or not -(2**63) <= units < 2**63:
        raise ValueError
    return int(units)


_SCALARS: tuple[tuple[tuple[Callable[[pa.DataType], bool], ...], Callable[[Any], Convert]], ...] = (
    ((pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view), lambda _: _is(str)),
    ((pa.types.is_boolean,), lambda _: _is(bool)),
    ((pa.types.is_null,), lambda _: _is(type(None))),
    ((pa.types.is_integer,), _whole),
    ((pa.types.is_floating,), lambda kind: _float(kind.bit_width)),
    ((pa.types.is_decimal,), lambda kind: lambda value: pa.scalar(Decimal(_number_or_text(value)), kind).as_py()),
    ((pa.types.is_fixed_size_binary,), lambda kind: lambda value: pa.scalar(_bytes(value), kind).as_py()),
    ((pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view), lambda _: _bytes),
    ((pa.types.is_date,), lambda _: date.fromisoformat),
    ((pa.types.is_timestamp,), lambda kind: lambda value: _moment(value, kind.unit, zoned=kind.tz is not None)),
    ((pa.types.is_time,), lambda kind: lambda value: _time(value, kind.unit)),
    ((pa.types.is_duration,), lambda kind: lambda value: _span(value, kind.unit)),
)
