"""The options of `create` and `update` that describe an endpoint."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Literal

import orjson
import typer

from orchestrator.domain.errors import UsageError
from orchestrator.endpoints.hf_spec import Access, access

_IMAGES = ("huggingface", "vLLM", "sGLang", "tgi", "tgiNeuron", "tei", "llamacpp", "hfServe", "custom")
_SECRET = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

REPOSITORY = typer.Option("--repository", help="The Hub repository of the model to serve.", metavar="ORG/MODEL")
ACCELERATOR = typer.Option("--accelerator", help="cpu, gpu, neuron ...")
INSTANCE_TYPE = typer.Option("--instance-type", help="nvidia-l4, intel-spr ...")
INSTANCE_SIZE = typer.Option("--instance-size", help="x1, x4 ...")
MIN_REPLICA = typer.Option(
    "--min-replica", min=0, help="Minimum number of replicas; 0 allows scaling to zero.", metavar="N"
)
MAX_REPLICA = typer.Option("--max-replica", min=1, help="Maximum number of replicas.", metavar="N")
TIMER = typer.Option(
    "--scale-to-zero-timeout",
    min=0,
    help="Idle minutes until it scales to zero, 15 to 2880; 0 is never.",
    metavar="MINUTES",
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
    typer.Option(
        "--scaling-metric", help="The metric that adds replicas: pendingRequests or hardwareUsage.", metavar="METRIC"
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option("--scaling-threshold", help="The value of the metric at which a replica is added.", metavar="N"),
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
Command = Annotated[
    list[str] | None, typer.Option("--command", help="One word of the container's command; repeatable.")
]
Args = Annotated[list[str] | None, typer.Option("--arg", help="An argument of the container; repeatable.")]
Env = Annotated[
    list[str] | None,
    typer.Option("--env", help="An environment variable of the container; repeatable.", metavar="KEY=VALUE"),
]
Secrets = Annotated[
    list[str] | None,
    typer.Option(
        "--secret",
        help="A secret of the container, read from the environment variable NAME, or VARIABLE; repeatable.",
        metavar="NAME[=VARIABLE]",
    ),
]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="Repeatable.")]
RegistryUsername = Annotated[
    str | None, typer.Option("--registry-username", help="The user at the registry of an image of your own.")
]
RegistryPassword = Annotated[
    str | None,
    typer.Option(
        "--registry-password-env",
        help="The environment variable with that user's password or token.",
        metavar="VARIABLE",
    ),
]
PrivateLinkAccount = Annotated[
    str | None,
    typer.Option("--private-link-account", help="The AWS account that reaches it by PrivateLink.", metavar="ID"),
]
PrivateLinkRegion = Annotated[
    str | None, typer.Option("--private-link-region", help="The AWS region of that entry point.", metavar="REGION")
]
Domain = Annotated[str | None, typer.Option("--domain", help="A domain of yours at which it answers, too.")]
Path = Annotated[str | None, typer.Option("--path", help="A path at which it answers, too.", metavar="/PATH")]
Cache = Annotated[
    Literal["yes", "no"] | None,
    typer.Option(
        "--cache-http-responses",
        help="Whether the service keeps answers and sends them again: yes or no.",
        metavar="yes|no",
    ),
]
TensorParallelSize = Annotated[
    int | None,
    typer.Option(
        "--tensor-parallel-size", min=1, help="Accelerators for one copy of the model (vLLM, SGLang).", metavar="N"
    ),
]
DataParallelSize = Annotated[
    int | None,
    typer.Option("--data-parallel-size", min=1, help="Copies of the model, one per accelerator (vLLM).", metavar="N"),
]


def image(option: str) -> Mapping[str, object]:
    """Return the API's image for `KIND`, `KIND=URL` or `KIND=JSON`. Case and punctuation of the kind do not matter."""
    kind, _, rest = option.partition("=")
    kinds = {name.lower(): name for name in _IMAGES}
    name = kinds.get(re.sub(r"[^a-z]", "", kind.lower()))
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
    """Return arguments of the form `KEY=VALUE` as a mapping."""
    parts = [text.partition("=") for text in given]
    for key, equals, _ in parts:
        if not key or not equals:  # the message does not repeat the value, which may be a secret
            raise UsageError(f"{option} must be KEY=VALUE, and one of them is not")
    return {key: value for key, _, value in parts}


def secrets(given: Sequence[str]) -> dict[str, str]:
    """Return the environment variables of this process by the names of the secrets in the container."""
    variables = {}
    for text in given:
        inside, _, variable = text.partition("=")
        variable = variable or inside
        if not _SECRET.fullmatch(inside) or not _SECRET.fullmatch(variable):
            raise UsageError("--secret must be NAME or NAME=VARIABLE: its value is read from the environment")
        variables[inside] = variable
    return variables


def who_may_call(given: str) -> Access:
    """Return the value of --type. Raises `UsageError`, which lists the valid values."""
    with usable():
        return access("--type", given)


def yes_or_no(given: Literal["yes", "no"] | None) -> bool | None:
    """Return whether the option was given with yes; None if it was not given."""
    return None if given is None else given == "yes"


@contextmanager
def usable() -> Iterator[None]:
    """Turn the `ValueError` of an invalid option into a `UsageError`."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error
