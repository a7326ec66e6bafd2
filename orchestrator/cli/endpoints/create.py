"""orchestrator endpoints create: create a Hugging Face endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.app.endpoints import creation
from orchestrator.app.endpoints.lookup import managed_by_hugging_face
from orchestrator.cli.command import Missing, print_json
from orchestrator.cli.endpoints import options
from orchestrator.cli.endpoints.list import price_words
from orchestrator.cli.endpoints.resume import Wait, tell
from orchestrator.cli.endpoints.which import Name, Namespace, with_endpoint
from orchestrator.cli.options import AsJson
from orchestrator.cli.terminal import say
from orchestrator.domain.command_line import typed
from orchestrator.endpoints import EndpointSpec

if TYPE_CHECKING:
    from orchestrator.app import App
    from orchestrator.app.endpoints.creation import Made
    from orchestrator.ports import Endpoint


def create(
    context: typer.Context,
    name: Name,
    repository: Annotated[str, options.REPOSITORY],
    vendor: options.Vendor,
    region: options.Region,
    accelerator: Annotated[str, options.ACCELERATOR],
    instance_type: Annotated[str, options.INSTANCE_TYPE],
    instance_size: Annotated[str, options.INSTANCE_SIZE],
    namespace: Namespace = None,
    min_replica: Annotated[int, options.MIN_REPLICA] = 0,
    max_replica: Annotated[int, options.MAX_REPLICA] = 1,
    scaling_metric: options.Metric = None,
    scaling_threshold: options.Threshold = None,
    scale_to_zero_timeout: Annotated[int, options.TIMER] = 15,
    task: options.Task = None,
    framework: Annotated[str, options.FRAMEWORK] = "pytorch",
    revision: options.Revision = None,
    image: options.Image = None,
    command: options.Command = None,
    arg: options.Args = None,
    env: options.Env = None,
    secret: options.Secrets = None,
    type_: Annotated[str, options.TYPE] = "private",
    tag: options.Tags = None,
    registry_username: options.RegistryUsername = None,
    registry_password_env: options.RegistryPassword = None,
    private_link_account_id: options.PrivateLinkAccount = None,
    private_link_region: options.PrivateLinkRegion = None,
    domain: options.Domain = None,
    path: options.Path = None,
    cache_http_responses: options.Cache = None,
    wait: Wait = False,
    json: AsJson = False,
) -> None:
    """Create a Hugging Face endpoint. It starts at once, and costs money until it is paused or scaled to zero."""

    def spec() -> EndpointSpec:
        with options.usable():
            return EndpointSpec(
                repository,
                vendor=vendor,
                region=region,
                accelerator=accelerator,
                instance_type=instance_type,
                instance_size=instance_size,
                revision=revision,
                task=task,
                framework=framework,
                min_replica=min_replica,
                max_replica=max_replica,
                scale_to_zero_timeout=scale_to_zero_timeout or None,
                scaling_metric=scaling_metric,
                scaling_threshold=scaling_threshold,
                image={"huggingface": {}} if image is None else options.image(image),
                command=command or (),
                args=arg or (),
                env=options.pairs("--env", env or ()),
                secrets=options.secrets(secret or ()),
                type=options.who_may_call(type_),
                tags=tag or (),
                registry_username=registry_username,
                registry_password_env=registry_password_env,
                private_link_account_id=private_link_account_id,
                private_link_region=private_link_region,
                domain=domain,
                path=path,
                cache_http_responses=options.yes_or_no(cache_http_responses),
            )

    async def act(endpoint: Endpoint, app: App) -> Made:
        managed = managed_by_hugging_face(endpoint, "create")
        return await creation.create(managed, spec(), app.store, tell, wait=wait)

    show_made(with_endpoint(context, name, namespace, act, json=json, missing=Missing.CREATE), "created", json=json)


def show_made(made: Made, verb: str, *, json: bool) -> None:
    """Print the endpoint's state and what it costs."""
    known, shown, price = made.name, made.description, made.price
    timer = shown.scaling.scale_to_zero_timeout
    if json:
        facts = {"endpoint": known, "state": shown.state, "message": shown.message, "url": shown.url}
        print_json(facts | {"price_per_hour": price, "scale_to_zero_minutes": timer})
        return
    say(f"endpoint {known} is {verb}: {shown.state}{f', at {shown.url}' if shown.url else ''}")
    sleeps = "has no scale-to-zero timer" if timer is None else f"sleeps after {timer} idle minutes"
    say(f"it costs {price_words(price)} an hour while a replica is awake, and {sleeps}")
    say(f"pause it at any time: {typed('endpoints', 'pause', known)}")
