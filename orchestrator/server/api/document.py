"""The OpenAPI document of `/api`, made from the operations."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson
from pydantic.json_schema import models_json_schema

from orchestrator.domain.identity import Role
from orchestrator.server.api.answers import Failed
from orchestrator.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import BaseModel

    from orchestrator.server.api.operations import Operation
    from orchestrator.server.api.requests import RequestModel

Schemas = Mapping[Any, Mapping[str, Any]]
_ABOUT = (
    "What the page and programs use: look at runs, items, the queue, schedules, endpoints and costs, and act on them. "
    "Moments are seconds since 1970 UTC. What happens is also a stream of server-sent events at /events."
)
_PATHS = {
    "run": "A run's number, or a job's name for its latest run.",
    "item": "The item's id.",
    "job": "The name of a job that has a schedule.",
}
_FAILURES = {
    400: "The request is not valid.",
    401: "The token is missing or wrong.",
    403: "The token's role may not do this.",
    404: "There is no such thing.",
    409: "This cannot be done now; the message says why.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    503: "The ledger is locked; try again.",
}
_OF_EVERY = (400, 401, 403, 503)
_OF_ACTIONS = (409, 413, 415)


def document_of(operations: Sequence[Operation[Any]]) -> bytes:
    """Return the document as JSON."""
    kinds: list[type[BaseModel]] = [Failed]
    for operation in operations:
        kinds += [operation.answers, operation.asks]
    schemas, shared = models_json_schema(
        [(kind, "validation") for kind in dict.fromkeys(kinds)], ref_template="#/components/schemas/{model}"
    )
    by_kind = {kind: schema for (kind, _), schema in schemas.items()}
    paths: dict[str, dict[str, object]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, by_kind)
    return orjson.dumps(
        {
            "openapi": "3.1.0",
            "info": {"title": "orchestrator", "version": __version__, "description": _ABOUT},
            "security": [{"token": []}],
            "paths": paths,
            "components": {
                "schemas": shared.get("$defs", {}),
                "responses": {
                    str(status): {"description": words, "content": _json(by_kind[Failed])}
                    for status, words in _FAILURES.items()
                },
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            },
        },
        option=orjson.OPT_INDENT_2,
    )


def _operation(operation: Operation[Any], schemas: Schemas) -> dict[str, object]:
    in_path = [_in_path(name) for name in re.findall(r"{(\w+)}", operation.path)]
    role = {} if operation.needs is Role.READ else {"description": f"Needs the role {operation.needs}."}
    asked: dict[str, object] = {"parameters": [*in_path, *_in_query(operation.asks)]}
    if operation.method == "POST":
        required = any(field.is_required() for field in operation.asks.model_fields.values())
        body = {"required": required, "content": _json(schemas[operation.asks])}
        asked = {"parameters": in_path, "requestBody": body}
    return {
        "operationId": operation.handle.__name__,
        "summary": (inspect.getdoc(operation.handle) or "").partition("\n")[0],
        **role,
        **asked,
        "responses": _responses(operation, schemas),
    }


def _in_path(name: str) -> dict[str, object]:
    schema = {"type": "string", "minLength": 1}
    return {"name": name, "in": "path", "required": True, "description": _PATHS[name], "schema": schema}


def _in_query(asks: type[RequestModel]) -> list[dict[str, object]]:
    """Return the parameters of a query, with the schemas of the model that checks them."""
    whole = asks.model_json_schema(ref_template="#/components/schemas/{model}")
    parameters = []
    for name, schema in whole.get("properties", {}).items():
        shown = {key: value for key, value in _without_null(schema).items() if key not in {"title", "description"}}
        about = {"description": schema["description"]} if "description" in schema else {}
        parameters.append({"name": name, "in": "query", "required": False, **about, "schema": shown})
    return parameters


def _without_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of what a query can say: a parameter is left out rather than null."""
    some = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    rest = {key: value for key, value in schema.items() if key != "anyOf" and not (key == "default" and value is None)}
    if "enum" in rest:
        rest["enum"] = [value for value in rest["enum"] if value is not None]
    return {**rest, **some[0]} if len(some) == 1 else {**rest, **({"anyOf": some} if some else {})}


def _responses(operation: Operation[Any], schemas: Schemas) -> dict[str, object]:
    statuses = [*_OF_EVERY, *(_OF_ACTIONS if operation.method == "POST" else ())]
    statuses += [404] if "{" in operation.path or "run" in operation.asks.model_fields else []
    done = {"description": "Done.", "content": _json(schemas[operation.answers])}
    failed = {str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted(statuses)}
    return {"200": done, **failed}


def _json(schema: Mapping[str, Any]) -> dict[str, object]:
    return {"application/json": {"schema": schema}}
