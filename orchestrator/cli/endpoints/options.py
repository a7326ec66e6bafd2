"""What an endpoint is to be, as options of `create` and `update`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Literal

import orjson
import typer

from orchestrator.domain.errors import EndpointFailed, OrchestratorError, UsageError
from orchestrator.endpoints.hf_spec import Access, access

_IMAGES = ("huggingface", "vLLM", "sGLang", "tgi", "tgiNeuron", "tei", "llamacpp", "hfServe", "custom")
_SECRET = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

REPOSITORY = typer.Option("--repository", help="What it serves, from the Hub.", metavar="ORG/MODEL")
ACCELERATOR = typer.Option("--accelerator", help="cpu, gpu, neuron ...")
INSTANCE_TYPE = typer.Option("--instance-type", help="nvidia-l4, intel-spr ...")
INSTANCE_SIZE = typer.Option("--instance-size", help="x1, x4 ...")
MIN_REPLICA = typer.Option("--min-replica", min=0, help="0 lets it scale to zero.", metavar="N")
MAX_REPLICA = typer.Option("--max-replica", min=1, help="Replicas at the most.", metavar="N")
TIMER = typer.Option(
    "--scale-to-zero-timeout", min=0, help="Idle minutes until it sleeps, 15 to 2880; 0 is never.", metavar="MINUTES"
)
FRAMEWORK = typer.Option("--framework", help="pytorch, custom ...")
TYPE = typer.Option(
    "--type",
    help="Who may call it: private (your account), authenticated (every account), public (everybody).",
    metavar="WHO",
)

Vendor = Annotated[str, typer.Option("--vendor", help="aws, azure, gcp ...")]
Region = Annotated[str, typer.Option("--region", help="us-east-1 ...")]
Metric = Annotated[
    Literal["pendingRequests", "hardwareUsage"] | None,
    typer.Option("--scaling-metric", help="What adds a replica: pendingRequests or hardwareUsage.", metavar="METRIC"),
]
Threshold = Annotated[
    float | None, typer.Option("--scaling-threshold", help="At which value of the metric.", metavar="N")
]
Task = Annotated[str | None, typer.Option("--task", help="text-classification, feature-extraction ...")]
Revision = Annotated[str | None, typer.Option("--revision", help="A commit, tag or branch of the repository.")]
Image = Annotated[
    str | None,
    typer.Option(
        "--image",
        help=f"The container: its kind ({', '.join(_IMAGES)}), with a URL or with settings as JSON: tei=ghcr.io/x/y:1 "
        """or vLLM='{"maxNumSeqs": 256}'.""",
        metavar="KIND",
    ),
]
Command = Annotated[list[str] | None, typer.Option("--command", help="The container's command, part by part.")]
Args = Annotated[list[str] | None, typer.Option("--arg", help="An argument of the container; repeatable.")]
Env = Annotated[list[str] | None, typer.Option("--env", help="In the container; repeatable.", metavar="KEY=VALUE")]
Secrets = Annotated[
    list[str] | None,
    typer.Option(
        "--secret",
        help="In the container; its value is read from the environment variable of that name, or the one named.",
        metavar="NAME",
    ),
]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="Repeatable.")]


def image(option: str) -> Mapping[str, object]:
    """The API's image of `KIND`, `KIND=URL` or `KIND=JSON`; how the kind is spelled does not matter."""
    kind, _, rest = option.partition("=")
    known = {name.lower(): name for name in _IMAGES}
    name = known.get(re.sub(r"[^a-z]", "", kind.lower()))
    if name is None:
        raise UsageError(f"--image {option!r}: the kind must be one of {', '.join(_IMAGES)}")
    if not rest.lstrip().startswith("{"):
        return {name: {"url": rest} if rest else {}}
    try:
        settings = orjson.loads(rest)
    except ValueError as error:
        raise UsageError(f"--image {kind}: its settings are not JSON: {error}") from error
    return {name: settings}


def pairs(option: str, given: Sequence[str]) -> dict[str, str]:
    """`KEY=VALUE` as a mapping."""
    found = [text.partition("=") for text in given]
    for key, equals, _ in found:
        if not key or not equals:
            raise UsageError(
                f"{option} must be KEY=VALUE, and one of them is not"
            )  # it may hold what nobody should see
    return {key: value for key, _, value in found}


def secrets(given: Sequence[str]) -> dict[str, str]:
    """Names in the container -> environment variables here."""
    found = {}
    for text in given:
        inside, _, variable = text.partition("=")
        variable = variable or inside
        if not _SECRET.fullmatch(inside) or not _SECRET.fullmatch(variable):
            raise UsageError("--secret must be NAME or NAME=VARIABLE: its value is read from the environment")
        found[inside] = variable
    return found


def secret_values(variables: Mapping[str, str]) -> dict[str, str]:
    """Names in the container -> values. `UsageError` where a variable is not set."""
    for inside, variable in variables.items():
        if not os.environ.get(variable):
            raise UsageError(f"the secret {inside} is missing: set the environment variable {variable}")
    return {inside: os.environ[variable] for inside, variable in variables.items()}


def who_may_call(given: str) -> Access:
    """The value of --type; `UsageError` says what it may be."""
    with usable():
        return access("--type", given)


@contextmanager
def usable() -> Iterator[None]:
    """What the options cannot be, as a `UsageError`."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error


@contextmanager
def hidden(values: Mapping[str, str]) -> Iterator[None]:
    """Should somebody repeat a secret in an error, it is not shown."""
    try:
        yield
    except OrchestratorError as error:
        shown = str(error)
        for value in values.values():
            shown = shown.replace(value, "***")
        if shown == str(error):
            raise
        raise EndpointFailed(shown) from None
