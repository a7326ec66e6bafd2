"""`/v1/models`: what the endpoints in the settings serve to batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.server.context import context_of
from orchestrator.server.failures import Refused
from orchestrator.server.openai.objects import answer, model_object, page_object

if TYPE_CHECKING:
    from aiohttp import web


async def list_models(request: web.Request) -> web.Response:
    """List all models of the settings, in their order."""
    served = (await context_of(request).app.latest_settings.now()).served_models
    return answer(page_object([model_object(model, names) for model, names in served.items()], more=False))


async def retrieve_model(request: web.Request) -> web.Response:
    """Return one model, whose name may contain slashes."""
    model = request.match_info["model"]
    names = (await context_of(request).app.latest_settings.now()).served_models.get(model)
    if names is None:
        why = f"The model '{model}' does not exist: no [endpoints.NAME] models in the settings of this server has it."
        raise Refused(404, why, code="model_not_found", param="model")
    return answer(model_object(model, names))
