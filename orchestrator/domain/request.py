"""A job's `request` and a row's columns -> the request body."""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeAlias

from orchestrator.domain.item import File

Template: TypeAlias = (
    object  # a string with {column} in it, or dicts and lists of such; anything else stands for itself
)
RequestMaker: TypeAlias = Template | Callable[[Mapping[str, object]], object]

_SCALARS = frozenset({str, int, float, bool})
_PARAMETERS = ("parameters", "generate_kwargs")  # where servers expect them, when not beside the input


class MissingColumn(Exception):
    """The template names a column, or a place in one, that this row lacks, or that is null in it."""

    def __init__(self, column: str, columns: Mapping[str, object], why: str | None = None) -> None:
        known = ", ".join(columns)
        why = why or ("is null" if column in columns else f"is not among the row's columns ({known})")
        super().__init__(f"column {column!r} of the request template {why}")
        self.column = column


class Renderer:
    """Makes request bodies from rows; the template is taken apart once.

    A string that is nothing but one `{column}`, `{column[key]}` or `{column.name}` becomes the value with its type: a
    list, an object, a file, and inside dicts and lists a number or a truth value, too. Where the string is the whole
    template, these become text, since a request that is no object is a prompt.
    In any other string, lists and objects are written as JSON, everything else as Python's `format` does.
    """

    def __init__(self, template: RequestMaker) -> None:
        self._make = template if callable(template) else _compile(template, top=True)

    def __call__(self, columns: Mapping[str, object]) -> object:
        """The body for one row. Raises `MissingColumn`, or whatever the job's own function raises."""
        return self._make(columns)


def _compile(template: Template, *, top: bool = False) -> Callable[[Mapping[str, object]], object]:
    if isinstance(template, str):
        return _compile_text(template, keep_type=not top)
    if isinstance(template, Mapping):
        parts = {key: _compile(value) for key, value in template.items()}
        return lambda columns: {key: part(columns) for key, part in parts.items()}
    if isinstance(template, list | tuple):
        members = [_compile(value) for value in template]
        return lambda columns: [member(columns) for member in members]
    return lambda _columns: template


def _compile_text(template: str, *, keep_type: bool) -> Callable[[Mapping[str, object]], object]:
    found = [field for _, field, _, _ in _WRITER.parse(template) if field is not None]
    if not all(found) or any(field.isdecimal() for field in found):
        raise ValueError(f"the request template {template!r} needs a column name in every pair of braces")
    names = [field.split("[")[0].split(".")[0] for field in found]
    nested = [field for field in found if field not in names]
    bare = bool(found) and template == f"{{{found[0]}}}"

    def make(columns: Mapping[str, object]) -> object:
        for name in names:
            if columns.get(name) is None:
                raise MissingColumn(name, columns)
        inside = [_WRITER.inside(field, columns) for field in nested]
        if bare:
            value = inside[0] if inside else columns[names[0]]
            return _WRITER.format_field(value, "") if not keep_type and _has_text(value) else value
        if not nested and all(type(columns[name]) in _SCALARS for name in names):
            return template.format_map(columns)  # the same, several times as fast
        return _WRITER.vformat(template, (), columns)

    return make


class _Writer(string.Formatter):
    """`str.format`, but a value for which Python has no text other than its `repr` is written as JSON."""

    def inside(self, field: str, columns: Mapping[str, object]) -> object:
        """What `column[key]` or `column.name` leads to; `MissingColumn` where that is nothing, or null."""
        try:
            value, _ = self.get_field(field, (), columns)
        except (LookupError, AttributeError, TypeError) as error:
            raise MissingColumn(field, columns, f"leads nowhere ({type(error).__name__}: {error})") from error
        if value is None:
            raise MissingColumn(field, columns, "is null")
        return value

    def convert_field(self, value: Any, conversion: Any) -> Any:
        """`!s` of what has no text but its `repr` is what stands in a text anyhow; `!r` and `!a` are as they are."""
        return value if conversion == "s" and not _has_text(value) else super().convert_field(value, conversion)

    def format_field(self, value: Any, format_spec: str) -> str:
        """A value as text."""
        if format_spec or _has_text(value):
            return format(value, format_spec)
        return json.dumps(_in_text(value), ensure_ascii=False, allow_nan=False, default=_in_text)


_WRITER = _Writer()


def _has_text(value: object) -> bool:
    """Whether Python writes this as more than its `repr`. Bytes and arrays have a text that is one all the same."""
    if isinstance(value, str | int | float):
        return True
    return (
        type(value).__str__ is not object.__str__ and not isinstance(value, bytes | bytearray) and not _is_array(value)
    )


def _is_array(value: object) -> bool:
    return bool(getattr(value, "ndim", 0)) and hasattr(value, "tolist")


def _in_text(value: Any) -> object:
    """What stands as JSON in a text for a value that JSON does not know. Times are ISO, decimals text."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, list | tuple):
        return value
    if hasattr(value, "tolist"):  # of NumPy
        return value.tolist()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if is_dataclass(value) and not isinstance(value, type | File):
        return {one.name: getattr(value, one.name) for one in fields(value)}
    if _has_text(value):
        return str(value)
    raise TypeError(f"a {type(value).__name__} cannot stand in a text")


def drawn_by_chance(fields: object) -> bool:
    """Whether these parameters, or a request's, ask for an answer that is another one each time."""
    if not isinstance(fields, Mapping):
        return False
    temperature = fields.get("temperature")
    if isinstance(temperature, int | float) and temperature > 0:
        return True
    return fields.get("do_sample") is True or any(drawn_by_chance(fields.get(name)) for name in _PARAMETERS)
