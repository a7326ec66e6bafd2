"""What a column holds, learned from its values, and the Arrow type that preserves all of them."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_FIELDS = 256  # an object with more keys is a dictionary of data, not a record

_EXACT_AS_FLOAT = 2**53
_DEEPEST = 32  # levels of a type: readers of Parquet refuse files with many more


class Mixed(Exception):
    """No single type preserves all values of the column."""


class Shape:
    """The kinds of JSON values seen in one place: a column, the items of its lists, or a field of its objects."""

    __slots__ = ("_alike", "_fields", "_highest", "_items", "_keys", "_kinds", "_lowest")

    def __init__(self) -> None:
        self._kinds: set[type] = set()
        self._lowest = 0
        self._highest = 0
        self._items: Shape | None = None
        self._keys: list[str] | None = None  # of the first object, in their order
        self._alike = True  # whether all objects have them
        self._fields: list[Shape] = []  # one for each

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
            self._see_fields([value for value in values if isinstance(value, dict)])

    def _see_fields(self, objects: list[dict[str, object]]) -> None:
        if self._keys is None:
            self._keys = list(objects[0])
            self._fields = [Shape() for _ in self._keys[:MAX_FIELDS]]
        self._alike = self._alike and all(list(fields) == self._keys for fields in objects)
        if self._alike:
            for name, shape in zip(self._keys, self._fields, strict=False):
                shape.see([fields[name] for fields in objects])

    def arrow(self, levels: int = _DEEPEST) -> pa.DataType:
        """Return the type that preserves every value, or text if there was no value. Raises `Mixed`."""
        if not levels:
            raise Mixed
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
            return pa.list_(self._items.arrow(levels - 1))
        # a struct has the same fields in every row, and Parquet has no struct without fields
        if kinds == {dict} and self._keys and self._alike and len(self._keys) <= MAX_FIELDS:
            return pa.struct(
                [(name, shape.arrow(levels - 1)) for name, shape in zip(self._keys, self._fields, strict=True)]
            )
        raise Mixed

    def _whole_number(self) -> pa.DataType:
        for kind, lowest, highest in ((pa.int64(), -(2**63), 2**63 - 1), (pa.uint64(), 0, 2**64 - 1)):
            if lowest <= self._lowest and self._highest <= highest:
                return kind
        raise Mixed
