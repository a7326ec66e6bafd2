"""orchestrator endpoints update: change a Hugging Face endpoint."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.command import Missing
from orchestrator.cli.endpoints import options
from orchestrator.cli.endpoints.create import Made, made_of, show_made
from orchestrator.cli.endpoints.resume import Wait
from orchestrator.cli.endpoints.which import Name, Namespace, managed_by_hugging_face, management, with_endpoint
from orchestrator.cli.run import AsJson
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import UsageError
from orchestrator.endpoints.hf_spec import check_timer
from orchestrator.engine.awake.by_hand import Waking, absent, kept_by_hand

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.app import App
    from orchestrator.endpoints import HuggingFaceEndpoint
    from orchestrator.ports import Endpoint
    from orchestrator.store import Store


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
        scaling: dict[str, Any] = _given(
            minReplica=min_replica,
            maxReplica=max_replica,
            measure=None if scaling_metric is None else {scaling_metric: scaling_threshold},
        )
        if scale_to_zero_timeout is not None:
            with options.usable():
                check_timer("--scale-to-zero-timeout", scale_to_zero_timeout or None)
            scaling["scaleToZeroTimeout"] = scale_to_zero_timeout or None
        values = options.secret_values(options.secrets(secret or ()))
        compute = _given(
            accelerator=accelerator, instanceType=instance_type, instanceSize=instance_size, scaling=scaling or None
        )
        model = _given(
            repository=repository,
            revision=revision,
            task=task,
            framework=framework,
            image=None if image is None else options.image(image),
            command=command,
            args=arg,
            env=options.pairs("--env", env) if env else None,
            secrets=values or None,
        )
        changes = _given(
            compute=compute or None, model=model or None, type=type_ and options.who_may_call(type_), tags=tag
        )
        return await _update(managed, app.store, changes, values, wait=wait)

    show_made(with_endpoint(context, name, namespace, act, json=json, missing=Missing.CREATE), "updated", json=json)


async def _update(
    endpoint: HuggingFaceEndpoint, store: Store, changes: Mapping[str, Any], values: Mapping[str, str], *, wait: bool
) -> Made:
    if not changes:
        raise UsageError("there is nothing to change: give an option, see `orchestrator endpoints update --help`")
    async with management(endpoint) as (api, name), endpoint.control() as control:
        found = await control.state()
        if found is EndpointState.GONE:
            raise absent(f"{api.namespace}/{name}")
        with options.hidden(values):
            made = await api.update(name, changes)
        price = await api.price(made.hardware)
        if found.asleep and not (await control.state()).asleep:  # raising --min-replica wakes it
            terms = replace(control.terms, price_per_hour=price)
            async with kept_by_hand(store, control, terms, Waking("update"), found):
                pass
    return await made_of(endpoint, api.namespace, made, price, wait=wait)


def _given(**values: object) -> dict[str, Any]:
    """Return the values that are set."""
    return {key: value for key, value in values.items() if value is not None}
