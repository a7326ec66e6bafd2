"""What an answer has to match: a JSON schema, or a pydantic model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from orchestrator import exact_json
from orchestrator.domain.errors import FailureKind, RequestFailed

if TYPE_CHECKING:
    from pydantic import BaseModel

_SHOWN = 5  # errors that are passed on
_LENGTH = 300  # characters of one


@dataclass(frozen=True, slots=True)
class Schema:
    """`schema` is sent to the server; `_check` yields the errors of a value."""

    name: str
    schema: Mapping[str, object]
    _check: Callable[[object], list[str]]

    @classmethod
    def of(cls, given: object) -> Schema:
        """Return the schema for a setting. Raises `ValueError` if it is not one."""
        if isinstance(given, Mapping):
            return cls(_name(given.get("title")), dict(given), _checks_schema(dict(given)))
        from pydantic import BaseModel  # it takes long to import, and few jobs need it

        if isinstance(given, type) and issubclass(given, BaseModel):
            return cls(_name(given.__name__), given.model_json_schema(), _checks_model(given))
        raise ValueError(f"response_format must be a JSON schema or a pydantic model, not {given!r}")

    @property
    def response_format(self) -> dict[str, object]:
        """Return it as OpenAI's chat takes it. Not `strict`: OpenAI refuses it for most schemas; we check answers."""
        return {"type": "json_schema", "json_schema": {"name": self.name, "schema": self.schema}}

    @property
    def text_format(self) -> dict[str, object]:
        """Return it as OpenAI's responses take it, under `text.format`."""
        return {"type": "json_schema", "name": self.name, "schema": self.schema}

    def complaint(self, value: object) -> str | None:
        """Return the value's errors on one line, or None. Raises `RequestFailed` if it cannot be checked."""
        try:
            wrong = self._check(value)
        except Exception as error:  # the user's own validator, or a schema with a dangling reference
            raise RequestFailed(
                FailureKind.PARSE, f"response_format cannot check the answer: {type(error).__name__}: {error}"
            ) from error
        return re.sub(r"\s+", " ", "; ".join(part[:_LENGTH] for part in wrong)) or None


def _checks_model(model: type[BaseModel]) -> Callable[[object], list[str]]:
    from pydantic import ValidationError

    def check(value: object) -> list[str]:
        try:
            model.model_validate_json(exact_json.dumps(value))
        except ValidationError as error:
            return [f"{'.'.join(map(str, wrong['loc'])) or 'it'}: {wrong['msg']}" for wrong in error.errors()[:_SHOWN]]
        return []

    return check


def _checks_schema(schema: dict[str, object]) -> Callable[[object], list[str]]:
    # imported here because it takes time and few jobs need it; it ships no types
    from jsonschema import Draft202012Validator, SchemaError  # type: ignore[import-untyped]
    from jsonschema.validators import validator_for  # type: ignore[import-untyped]
    from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]

    kind: Any = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"response_format is no JSON schema: {error.message}") from error
    validator = kind(schema, registry=REGISTRY)  # and nothing is fetched from anywhere

    def check(value: object) -> list[str]:
        return [f"{error.json_path}: {error.message}" for error in islice(validator.iter_errors(value), _SHOWN)]

    return check


def _name(title: object) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", title)[:64] if isinstance(title, str) and title else "answer"
