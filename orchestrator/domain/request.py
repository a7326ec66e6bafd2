"""A job's `request` and a row's columns -> the request body."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from typing import TypeAlias

from orchestrator.domain.item import File

Template: TypeAlias = (
    object  # a string with {column} in it, or dicts and lists of such; anything else stands for itself
)
RequestMaker: TypeAlias = Template | Callable[[Mapping[str, object]], object]

_PARAMETERS = ("parameters", "generate_kwargs")  # where servers expect them, when not beside the input


class MissingColumn(Exception):
    """The template names a column that this row lacks, or that is null in it."""

    def __init__(self, column: str, columns: Mapping[str, object]) -> None:
        known = ", ".join(columns)
        why = "is null" if column in columns else f"is not among the row's columns ({known})"
        super().__init__(f"column {column!r} of the request template {why}")
        self.column = column


class Renderer:
    """Makes request bodies from rows; the template is taken apart once.

    A string becomes a string. Inside dicts and lists, a string that is nothing but one `{column}` becomes the column's
    value with its type. A column that holds a file becomes the file.
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
    fields = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
    if not all(fields) or any(field.isdecimal() for field in fields):
        raise ValueError(f"the request template {template!r} needs a column name in every pair of braces")
    names = [field.split("[")[0].split(".")[0] for field in fields]
    bare = template == f"{{{names[0]}}}" if names else False

    def make(columns: Mapping[str, object]) -> object:
        for name in names:
            if columns.get(name) is None:
                raise MissingColumn(name, columns)
        if bare and (keep_type or isinstance(columns[names[0]], File)):
            return columns[names[0]]
        return template.format_map(columns)

    return make


def drawn_by_chance(fields: object) -> bool:
    """Whether these parameters, or a request's, ask for an answer that is another one each time."""
    if not isinstance(fields, Mapping):
        return False
    temperature = fields.get("temperature")
    if isinstance(temperature, int | float) and temperature > 0:
        return True
    return fields.get("do_sample") is True or any(drawn_by_chance(fields.get(name)) for name in _PARAMETERS)
