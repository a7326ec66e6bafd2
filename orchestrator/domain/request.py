"""Makes request bodies from a job's `request` template and the columns of a row."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeAlias

from orchestrator.domain.item import File

Template: TypeAlias = (
    object  # a string with {column} in it, or dicts and lists of such strings; anything else is taken as it is
)
RequestMaker: TypeAlias = Template | Callable[[Mapping[str, object]], object]

_SCALARS = frozenset({str, int, float, bool})
_PARAMETERS = ("parameters", "generate_kwargs")  # where servers expect parameters that are not next to the input


class MissingColumn(Exception):
    """The template names a column, or a value inside one, that is missing or null in this row."""

    def __init__(self, column: str, columns: Mapping[str, object], why: str | None = None) -> None:
        known = ", ".join(columns)
        why = why or ("is null" if column in columns else f"is not among the row's columns ({known})")
        super().__init__(f"column {column!r} of the request template {why}")
        self.column = column


class Renderer:
    """Makes request bodies from rows; the template is parsed once.

    A string that consists of a single `{column}`, `{column[key]}` or `{column.name}` becomes the value and keeps its
    type: a list, an object, a file, and inside dicts and lists also a number or a boolean. If the string is the whole
    template, numbers and booleans become text, since a request that is not an object is a prompt.
    In any other string, lists and objects are written as JSON, everything else as Python's `format` does.
    """

    def __init__(self, template: RequestMaker) -> None:
        self._make = template if callable(template) else _compile(template, top=True)

    def __call__(self, columns: Mapping[str, object]) -> object:
        """Return the body for one row. Raises `MissingColumn`, or whatever the job's own function raises."""
        return self._make(columns)


def columns_in(template: RequestMaker) -> frozenset[str] | None:
    """Return the columns that a template names; None if it may use any, because it is a function."""
    if callable(template):
        return None
    if isinstance(template, str):
        fields = list(_WRITER.parse(template))
        if any(spec and "{" in spec for _, _, spec, _ in fields):  # a column may say how another one is written
            return None
        return frozenset(re.split(r"[\[.]", name)[0] for _, name, _, _ in fields if name)
    if not isinstance(template, Mapping | list | tuple):
        return frozenset()
    parts = template.values() if isinstance(template, Mapping) else template
    found = [columns_in(part) for part in parts]
    return None if None in found else frozenset().union(*(part for part in found if part is not None))


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
    placeholders = [field for _, field, _, _ in _WRITER.parse(template) if field is not None]
    if not all(placeholders) or any(field.isdecimal() for field in placeholders):
        raise ValueError(f"the request template {template!r} needs a column name in every pair of braces")
    names = [field.split("[")[0].split(".")[0] for field in placeholders]
    nested = [field for field in placeholders if field not in names]
    bare = bool(placeholders) and template == f"{{{placeholders[0]}}}"

    def make(columns: Mapping[str, object]) -> object:
        for name in names:
            if columns.get(name) is None:
                raise MissingColumn(name, columns)
        if bare and type(value := columns[names[0]]) is str and not nested:
            return value
        inside = [_WRITER.inside(field, columns) for field in nested]
        if bare:
            value = inside[0] if inside else columns[names[0]]
            return _WRITER.format_field(value, "") if not keep_type and _has_text(value) else value
        if not nested and all(type(columns[name]) in _SCALARS for name in names):
            return template.format_map(columns)  # the same result, several times as fast
        return _WRITER.vformat(template, (), columns)

    return make


class _Writer(string.Formatter):
    """`str.format`, except that a value whose only text in Python is its `repr` is written as JSON."""

    def inside(self, field: str, columns: Mapping[str, object]) -> object:
        """Return the value of `column[key]` or `column.name`. Raises `MissingColumn` if it is missing or null."""
        try:
            value, _ = self.get_field(field, (), columns)
        except (LookupError, AttributeError, TypeError) as error:
            raise MissingColumn(field, columns, f"cannot be looked up ({type(error).__name__}: {error})") from error
        if value is None:
            raise MissingColumn(field, columns, "is null")
        return value

    def convert_field(self, value: Any, conversion: Any) -> Any:
        """Ignore `!s` for values that are written as JSON anyway; `!r` and `!a` work as usual."""
        return value if conversion == "s" and not _has_text(value) else super().convert_field(value, conversion)

    def format_field(self, value: Any, format_spec: str) -> str:
        """Return a value as text."""
        if format_spec or _has_text(value):
            return format(value, format_spec)
        return json.dumps(_in_text(value), ensure_ascii=False, allow_nan=False, default=_in_text)


_WRITER = _Writer()


def _has_text(value: object) -> bool:
    """Whether Python has a text for the value besides its `repr`. The text of bytes and arrays is merely a `repr`."""
    if isinstance(value, str | int | float):
        return True
    return (
        type(value).__str__ is not object.__str__ and not isinstance(value, bytes | bytearray) and not _is_array(value)
    )


def _is_array(value: object) -> bool:
    return bool(getattr(value, "ndim", 0)) and hasattr(value, "tolist")


def _in_text(value: Any) -> object:
    """Convert a value that JSON does not support, to be written in a text. Times become ISO text, decimals text."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, list | tuple):
        return value
    if hasattr(value, "tolist"):  # of NumPy
        return value.tolist()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if is_dataclass(value) and not isinstance(value, type | File):
        return {member.name: getattr(value, member.name) for member in fields(value)}
    if _has_text(value):
        return str(value)
    raise TypeError(f"a {type(value).__name__} cannot be written in a text")


def drawn_by_chance(fields: object) -> bool:
    """Whether these parameters, or those inside a request, ask for random sampling, so that answers vary."""
    if isinstance(fields, str) or not isinstance(fields, Mapping):  # a text is known at once
        return False
    temperature = fields.get("temperature")
    if isinstance(temperature, int | float) and temperature > 0:
        return True
    return fields.get("do_sample") is True or any(drawn_by_chance(fields.get(name)) for name in _PARAMETERS)
