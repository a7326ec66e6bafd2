"""orchestrator endpoints update: change a Hugging Face endpoint."""

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
from orchestrator.domain.errors import UsageError
from orchestrator.endpoints.hf_spec import EndpointChanges, check_route, check_timer

if TYPE_CHECKING:
    from orchestrator.app import App
    from orchestrator.app.endpoints.creation import Made
    from orchestrator.ports import Endpoint


def update(
    context: typer.Context,
    name: Name,
    repository: Annotated[str | None, options.REPOSITORY] = None,
    namespace: Namespace = None,
    accelerator: Annotated[str | None, options.ACCELERATOR] = None,
    instance_type: Annotated[str | None, options.INSTANCE_TYPE] = None,
    instance_size: Annotated[str | None, options.INSTANCE_SIZE] = None,
    min_replica: Annotated[int | None, options.MIN_REPLICA] = None,
    max_replica: Annotated[int | None, options.MAX_REPLICA] = None,
    scaling_metric: options.Metric = None,
    scaling_threshold: options.Threshold = None,
    scale_to_zero_timeout: Annotated[int | None, options.TIMER] = None,
    task: options.Task = None,
    framework: Annotated[str | None, options.FRAMEWORK] = None,
    revision: options.Revision = None,
    image: options.Image = None,
    command: options.Command = None,
    arg: options.Args = None,
    env: options.Env = None,
    secret: options.Secrets = None,
    type_: Annotated[str | None, options.TYPE] = None,
    tag: options.Tags = None,
    tensor_parallel_size: options.TensorParallelSize = None,
    data_parallel_size: options.DataParallelSize = None,
    domain: options.Domain = None,
    path: options.Path = None,
    cache_http_responses: options.Cache = None,
    wait: Wait = False,
    json: AsJson = False,
) -> None:
    """Change the given settings of a Hugging Face endpoint. A running endpoint is restarted with them.

    Each of --env, --secret, --arg and --tag replaces all earlier values of its kind.
    """

    async def act(endpoint: Endpoint, app: App) -> Made:
        managed = managed_by_hugging_face(endpoint, "update")
        if (scaling_metric is None) != (scaling_threshold is None):
            raise UsageError("--scaling-metric and --scaling-threshold must be given together")
        with options.usable():
            check_timer("--scale-to-zero-timeout", scale_to_zero_timeout or None)
            check_route("--path", path)
        changes = EndpointChanges(
            repository=repository,
            revision=revision,
            task=task,
            framework=framework,
            accelerator=accelerator,
            instance_type=instance_type,
            instance_size=instance_size,
            min_replica=min_replica,
            max_replica=max_replica,
            scaling_metric=scaling_metric,
            scaling_threshold=scaling_threshold,
            scale_to_zero_timeout=scale_to_zero_timeout,
            secrets=options.secrets(secret or ()),
            image=None if image is None else options.image(image),
            command=command,
            args=arg,
            env=options.pairs("--env", env or ()),
            type=options.who_may_call(type_) if type_ else None,
            tags=tag,
            tensor_parallel_size=tensor_parallel_size,
            data_parallel_size=data_parallel_size,
            domain=domain,
            path=path,
            cache_http_responses=options.yes_or_no(cache_http_responses),
        )
        if changes == EndpointChanges():
            raise UsageError("there is nothing to change: give an option, see `orchestrator endpoints update --help`")
        return await creation.update(managed, changes, app.store, tell, wait=wait)

    show_made(with_endpoint(context, name, namespace, act, json=json, missing=Missing.CREATE), "updated", json=json)
