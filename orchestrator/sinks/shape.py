"""What a column holds, learnt from its values, and the Arrow type that keeps all of them as they are."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_FIELDS = 256  # an object with more keys is a dictionary of data, not a record

_EXACT_AS_FLOAT = 2**53


class Mixed(Exception):
    """No one type keeps all values of the column as they are."""


class Shape:
    """Which kinds of JSON values were seen in one place: a column, the items of its lists, a field of its objects."""

    __slots__ = ("_fields", "_highest", "_items", "_kinds", "_lowest")

    def __init__(self) -> None:
        self._kinds: set[type] = set()
        self._lowest = 0
        self._highest = 0
        self._items: Shape | None = None
        self._fields: dict[str, Shape] = {}

    def see(self, values: Iterable[object]) -> None:
        """Learn from more values."""
        values = list(values)
        kinds = set(map(type, values))  # at the speed of C: an embedding is hundreds of values
        self._kinds |= kinds
        if int in kinds:
            numbers = [value for value in values if type(value) is int]
            self._lowest = min(self._lowest, *numbers)
            self._highest = max(self._highest, *numbers)
        if list in kinds:
            self._items = self._items or Shape()
            self._items.see(chain.from_iterable(value for value in values if isinstance(value, list)))
        if dict in kinds:
            self._see_fields(value for value in values if isinstance(value, dict))

    def _see_fields(self, objects: Iterable[dict[str, object]]) -> None:
        for name, value in chain.from_iterable(fields.items() for fields in objects):
            if name in self._fields or len(self._fields) <= MAX_FIELDS:
                self._fields.setdefault(name, Shape()).see([value])

    def arrow(self) -> pa.DataType:
        """Return the type that keeps every value; text where there was never one. Raises `Mixed`."""
        kinds = self._kinds - {type(None)}
        if not kinds or kinds == {str}:
            return pa.string()
        if kinds == {bool}:
            return pa.bool_()
        if kinds == {int}:
            return self._whole_number()
        if kinds == {float} or (kinds == {int, float} and max(-self._lowest, self._highest) <= _EXACT_AS_FLOAT):
            return pa.float64()
        if kinds == {list} and self._items:
            return pa.list_(self._items.arrow())
        # Parquet knows no object without fields
        if kinds == {dict} and 0 < len(self._fields) <= MAX_FIELDS:
            return pa.struct([(name, shape.arrow()) for name, shape in self._fields.items()])
        raise Mixed

    def _whole_number(self) -> pa.DataType:
        for kind, lowest, highest in ((pa.int64(), -(2**63), 2**63 - 1), (pa.uint64(), 0, 2**64 - 1)):
            if lowest <= self._lowest and self._highest <= highest:
                return kind
        raise Mixed
