"""Columns with a meaning beyond their physical type: JSON in a text, an interval in twelve bytes."""

from __future__ import annotations

import struct
from base64 import b64decode
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pyarrow as pa

from orchestrator.sources import written_json
from orchestrator.sources.arrow_values import iso_interval

Decoder: TypeAlias = Callable[[Any], object]  # raises ValueError for what is not JSON
JSON_AS_TEXT = "json as text"


def json_decoder(kind: pa.DataType, leaves: Iterator[str]) -> Decoder | None:
    """Return a decoder for such parts of a value of this type, at any depth, or None if it has none.

    `leaves`: of the leaf columns in order, the converted types of a Parquet file, or `JSON_AS_TEXT` where the type does
    not say so; those that belong to this type are consumed.
    """
    if isinstance(kind, pa.StructType):
        found = ((field.name, json_decoder(field.type, leaves)) for field in kind)
        fields = {name: decode for name, decode in found if decode is not None}
        return _in_struct(fields) if fields else None
    if isinstance(kind, pa.MapType):  # a list of pairs
        key = json_decoder(kind.key_type, leaves) or _as_it_is
        item = json_decoder(kind.item_type, leaves) or _as_it_is
        return None if key is item is _as_it_is else _in_list(lambda pair: [key(pair[0]), item(pair[1])])
    if isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType | pa.ListViewType | pa.LargeListViewType):
        decode = json_decoder(kind.value_type, leaves)
        return None if decode is None else _in_list(decode)
    leaf = next(leaves)
    if isinstance(kind, pa.JsonType) or leaf == JSON_AS_TEXT:
        return _loads
    return _interval if leaf == "INTERVAL" else None


def _loads(text: str | None) -> object:
    return None if text is None else written_json.loads(text)


def _interval(data: str | None) -> str | None:
    """Return the ISO text of Parquet's interval of twelve bytes (months, days, milliseconds), given as base64."""
    if data is None:
        return None
    months, days, milliseconds = struct.unpack("<iii", b64decode(data))
    return iso_interval(months, days, milliseconds * 1_000_000)


def _as_it_is(value: object) -> object:
    return value


def _in_list(decode: Decoder) -> Decoder:
    return lambda values: None if values is None else [decode(value) for value in values]


def _in_struct(fields: dict[str, Decoder]) -> Decoder:
    return lambda value: (
        None if value is None else value | {name: decode(value[name]) for name, decode in fields.items()}
    )
