"""Parquet columns whose text is JSON by their logical type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import pyarrow as pa

from orchestrator.sources import written_json

Decoder: TypeAlias = Callable[[Any], object]  # raises ValueError for what is not JSON


def json_decoder(kind: pa.DataType) -> Decoder | None:
    """Return what decodes the JSON in a value of this type, at any depth; None where there is none in it."""
    if isinstance(kind, pa.JsonType):
        return _loads
    if isinstance(kind, pa.StructType):
        fields = {field.name: decode for field in kind if (decode := json_decoder(field.type)) is not None}
        return _in_struct(fields) if fields else None
    if isinstance(kind, pa.MapType):  # a list of pairs
        key, item = json_decoder(kind.key_type) or _as_it_is, json_decoder(kind.item_type) or _as_it_is
        return None if key is item is _as_it_is else _in_list(lambda pair: [key(pair[0]), item(pair[1])])
    if isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType | pa.ListViewType | pa.LargeListViewType):
        decode = json_decoder(kind.value_type)
        return None if decode is None else _in_list(decode)
    return None


def _loads(text: str | None) -> object:
    return None if text is None else written_json.loads(text)


def _as_it_is(value: object) -> object:
    return value


def _in_list(decode: Decoder) -> Decoder:
    return lambda values: None if values is None else [decode(value) for value in values]


def _in_struct(fields: dict[str, Decoder]) -> Decoder:
    return lambda value: (
        None if value is None else value | {name: decode(value[name]) for name, decode in fields.items()}
    )
