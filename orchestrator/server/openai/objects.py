"""OpenAI's objects as JSON. Each is whole: what is not known is null, because clients read every field."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import orjson
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Sequence

Json: TypeAlias = dict[str, object]


def answer(value: Json) -> web.Response:
    """Return the response with an object."""
    return web.Response(body=orjson.dumps(value), content_type="application/json")


def model_object(model: str, endpoints: Sequence[str]) -> Json:
    """Return a model, which the endpoints that serve it own. When it was made is not known."""
    return {"id": model, "object": "model", "created": 0, "owned_by": ", ".join(endpoints)}


def page_object(objects: Sequence[Json], *, more: bool) -> Json:
    """Return a page of a list. `more`: whether there are objects behind it."""
    first, last = (objects[0]["id"], objects[-1]["id"]) if objects else (None, None)
    return {"object": "list", "data": objects, "first_id": first, "last_id": last, "has_more": more}
