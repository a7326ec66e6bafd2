"""orchestrator endpoints deploy: create a Hugging Face endpoint from the Inference Catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.app.endpoints import creation
from orchestrator.app.endpoints.lookup import managed_by_hugging_face
from orchestrator.cli.command import Missing
from orchestrator.cli.endpoints import options
from orchestrator.cli.endpoints.create import show_made
from orchestrator.cli.endpoints.resume import Wait, tell
from orchestrator.cli.endpoints.which import Name, Namespace, with_endpoint
from orchestrator.cli.options import AsJson
from orchestrator.endpoints.hf_catalog import Deployment
from orchestrator.endpoints.hf_spec import EndpointChanges, check_timer

if TYPE_CHECKING:
    from orchestrator.app import App
    from orchestrator.app.endpoints.creation import Made
    from orchestrator.ports import Endpoint


def deploy(
    context: typer.Context,
    name: Name,
    repository: Annotated[str | None, options.REPOSITORY] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="One recipe of `endpoints catalog`.", metavar="ID")
    ] = None,
    accelerator: Annotated[str | None, options.ACCELERATOR] = None,
    gguf_file: Annotated[
        str | None, typer.Option("--gguf-file", help="The file of a model that llama.cpp serves.", metavar="FILE")
    ] = None,
    namespace: Namespace = None,
    min_replica: Annotated[int, options.MIN_REPLICA] = 0,
    max_replica: Annotated[int | None, options.MAX_REPLICA] = None,
    scale_to_zero_timeout: Annotated[int, options.TIMER] = 15,
    type_: Annotated[str, options.TYPE] = "private",
    wait: Wait = False,
    json: AsJson = False,
) -> None:
    """Create a Hugging Face endpoint from the Inference Catalog. It starts at once, as with `create`.

    The catalog knows the hardware, the engine and its settings. Who may call the endpoint, and when it scales to zero,
    are set as by `create`.
    """

    async def act(endpoint: Endpoint, app: App) -> Made:
        managed = managed_by_hugging_face(endpoint, "deploy")
        with options.usable():
            check_timer("--scale-to-zero-timeout", scale_to_zero_timeout or None)
        wanted = Deployment(repository, recipe=recipe, accelerator=accelerator, gguf_file=gguf_file)
        settings = EndpointChanges(
            type=options.who_may_call(type_),
            min_replica=min_replica,
            max_replica=max_replica,
            scale_to_zero_timeout=scale_to_zero_timeout,
        )
        return await creation.deploy(managed, wanted, settings, app.store, tell, wait=wait)

    show_made(with_endpoint(context, name, namespace, act, json=json, missing=Missing.CREATE), "created", json=json)
