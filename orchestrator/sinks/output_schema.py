"""The type that a job declares for its outputs: a pydantic model, a JSON Schema, or an Arrow schema or type."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any, TypeAlias

import pyarrow as pa
from pydantic import BaseModel

from orchestrator.domain.errors import UsageError
from orchestrator.sinks.fitting import fit

DeclaredType: TypeAlias = type[BaseModel] | Mapping[str, object] | pa.Schema | pa.DataType

_ARROW = "arrow"  # the key of an Arrow type in the JSON form; no keyword of JSON Schema
_OUTPUT = "output"
_FORMATS: dict[tuple[object, object], pa.DataType] = {
    ("string", "date-time"): pa.timestamp("us", "UTC"),
    ("string", "date"): pa.date32(),
    ("string", "time"): pa.time64("us"),
    ("integer", "int32"): pa.int32(),
    ("number", "float"): pa.float32(),
}
_TYPES: dict[object, pa.DataType] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "null": pa.null(),
}
_OF_PYTHON = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


def schema_form(given: object) -> dict[str, object] | None:
    """Return the declaration as JSON: a JSON Schema, or `{"arrow": ...}`. Raises `UsageError` if it is not one."""
    if given is None:
        return None
    try:
        if isinstance(given, type) and issubclass(given, BaseModel):
            form = given.model_json_schema()
        elif isinstance(given, Mapping):
            form = dict(given)
        elif isinstance(given, pa.Schema | pa.DataType):
            form = _arrow_form(given)
        else:
            raise UsageError(
                f"schema={given!r} is not a type: give a pydantic model, a JSON Schema, or an Arrow schema or type"
            )
        declared(form)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, pa.ArrowException) as error:
        raise UsageError(f"schema= cannot be used: {error}") from error
    return form


def declared(form: Mapping[str, object]) -> pa.Field:
    """Return the column `output` of a declaration that `schema_form` made."""
    if form.keys() == {_ARROW}:
        field = pa.ipc.read_schema(pa.py_buffer(b64decode(str(form[_ARROW])))).field(0)
    else:
        kind, nullable = _JsonSchema(form).type_of(form)
        field = pa.field(_OUTPUT, kind, nullable)
    fit(field.type)  # raises if an output cannot have the type
    return field


def _arrow_form(given: pa.Schema | pa.DataType) -> dict[str, object]:
    kind = pa.struct(list(given)) if isinstance(given, pa.Schema) else given
    return {_ARROW: b64encode(pa.schema([(_OUTPUT, kind)]).serialize().to_pybytes()).decode()}


class _JsonSchema:
    """Types of a JSON Schema. Whatever has no single type, such as a union or an object with any keys, is JSON."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._open: list[str] = []  # references within which we are: a recursive one is JSON

    def type_of(self, schema: Any) -> tuple[pa.DataType, bool]:
        """Return the Arrow type, and whether null is a value."""
        if not isinstance(schema, Mapping):  # true
            return pa.json_(), True
        if isinstance(reference := schema.get("$ref"), str):
            return self._referred(reference)
        branches = self._branches(schema)
        if branches is None:
            return self._plain(schema), schema.get("type") == "null"
        found = [self.type_of(branch) for branch in branches]
        kinds = [kind for kind, _ in found if not pa.types.is_null(kind)]
        return (kinds[0] if len(set(kinds)) == 1 else pa.json_()), any(nullable for _, nullable in found)

    def _referred(self, reference: str) -> tuple[pa.DataType, bool]:
        if reference in self._open:
            return pa.json_(), True
        if not reference.startswith("#"):
            raise ValueError(f"the reference {reference!r} leads outside the schema")
        found: Any = self._root
        try:
            for step in filter(None, reference.removeprefix("#").split("/")):
                found = found[step.replace("~1", "/").replace("~0", "~")]
        except (KeyError, TypeError) as error:
            raise ValueError(f"the reference {reference!r} leads nowhere in the schema") from error
        self._open.append(reference)
        try:
            return self.type_of(found)
        finally:
            self._open.pop()

    @staticmethod
    def _branches(schema: Mapping[str, Any]) -> list[Any] | None:
        """Return the alternatives that a schema has, or None if it is a single type."""
        for word in ("anyOf", "oneOf"):
            if word in schema:
                return list(schema[word])
        if len(parts := schema.get("allOf", ())) == 1:
            return list(parts)
        if isinstance(kinds := schema.get("type"), list):
            return [{**schema, "type": kind} for kind in kinds]
        if "type" not in schema and (values := schema.get("enum", [schema["const"]] if "const" in schema else [])):
            return [{"type": _OF_PYTHON.get(type(value))} for value in values]
        return None

    def _plain(self, schema: Mapping[str, Any]) -> pa.DataType:
        name = schema.get("type", "object" if "properties" in schema else None)
        if name == "array" and "items" in schema and "prefixItems" not in schema:
            return pa.list_(pa.field("item", *self.type_of(schema["items"])))
        if name == "object":
            return self._object(schema)
        if name == "string" and schema.get("contentEncoding") == "base64":
            return pa.binary()
        return _FORMATS.get((name, schema.get("format"))) or _TYPES.get(name) or pa.json_()

    def _object(self, schema: Mapping[str, Any]) -> pa.DataType:
        if schema.get("additionalProperties") or schema.get("patternProperties"):  # fields without a name yet
            return pa.json_()
        required = schema.get("required", ())
        found = ((name, *self.type_of(part)) for name, part in schema.get("properties", {}).items())
        fields = [pa.field(name, kind, nullable or name not in required) for name, kind, nullable in found]
        return pa.struct(fields) if fields else pa.json_()  # any keys; not a map, which `datasets` does not read
