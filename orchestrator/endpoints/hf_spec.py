"""A Hugging Face endpoint as data: how to create one (`EndpointSpec`), and what the API reports (`Description`)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

from yarl import URL

from orchestrator.domain.errors import UsageError
from orchestrator.endpoints.hf_hardware import COMPUTE, Hardware, number_at, text_at, value_at

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?")
NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
TIMER = range(15, 2881)  # minutes that the API accepts for the scale-to-zero timer
Access = Literal["private", "authenticated", "public"]  # who may call an endpoint
_ACCESS: tuple[Access, ...] = ("private", "authenticated", "public")
_DIVIDED = {"tensorParallelSize": ("vLLM", "sGLang"), "dataParallelSize": ("vLLM",)}  # images with these settings
_METRICS = ("pendingRequests", "hardwareUsage")


@dataclass(frozen=True, slots=True)
class Scaling:
    """The number of replicas, and the idle minutes before there are none (only if `min_replica` is 0)."""

    min_replica: int
    max_replica: int
    scale_to_zero_timeout: int | None

    @property
    def body(self) -> dict[str, Any]:
        """The API's JSON for it."""
        return {
            "minReplica": self.min_replica,
            "maxReplica": self.max_replica,
            "scaleToZeroTimeout": self.scale_to_zero_timeout,
        }


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """Everything that is needed to create an endpoint, except its name.

    `image`: one of the API's variants, `{"tei": {"url": ...}}`, or `{"url": ...}` for your own.
    `secrets`: names in the container -> names of environment variables here, read when the endpoint is created.
    `type`: "private" is for your account only, "authenticated" for anyone with an account.
    `scale_to_zero_timeout`: minutes, 15 to 2880; None means no timer.
    `scaling_metric`, `scaling_threshold`: when to add a replica: `pendingRequests` or `hardwareUsage`.
    `registry_username`, `registry_password_env`: for the registry of an image of your own; the second one names the
    variable here with the password.
    `private_link_account_id`, `private_link_region`: the AWS account that reaches it by PrivateLink, and from where.
    `domain`, `path`: where it answers, beside its own URL. `cache_http_responses`: whether its answers are kept.
    """

    repository: str
    _: KW_ONLY
    vendor: str
    region: str
    accelerator: str
    instance_type: str
    instance_size: str
    revision: str | None = None
    task: str | None = None
    framework: str = "pytorch"
    min_replica: int = 0
    max_replica: int = 1
    scale_to_zero_timeout: int | None = 15
    scaling_metric: Literal["pendingRequests", "hardwareUsage"] | None = None
    scaling_threshold: float | None = None
    image: Mapping[str, object] = field(default_factory=lambda: {"huggingface": {}})
    command: Sequence[str] = ()
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    type: Access = "private"
    tags: Sequence[str] = ()
    registry_username: str | None = None
    registry_password_env: str | None = None
    private_link_account_id: str | None = None
    private_link_region: str | None = None
    domain: str | None = None
    path: str | None = None
    cache_http_responses: bool | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.min_replica <= self.max_replica or self.max_replica < 1:
            raise ValueError(
                f"replicas cannot range from {self.min_replica} to {self.max_replica}: the maximum must be at least 1, "
                "and the minimum from 0 to the maximum"
            )
        check_timer("scale_to_zero_timeout", self.scale_to_zero_timeout)
        access("type", self.type)
        if (self.scaling_metric is None) != (self.scaling_threshold is None):
            raise ValueError("scaling_metric and scaling_threshold go together")
        if self.scaling_metric not in {None, *_METRICS}:
            raise ValueError(f"scaling_metric must be one of {', '.join(_METRICS)}, not {self.scaling_metric!r}")
        if self.registry_password_env is not None and self.registry_username is None:
            raise ValueError("registry_password_env needs registry_username")
        if self.registry_username is not None and "custom" not in _keyed(self.image):
            raise ValueError("registry_username is for an image of your own: image={'url': ...}")
        if (self.private_link_account_id is None) != (self.private_link_region is None):
            raise ValueError("private_link_account_id and private_link_region go together")
        check_route("path", self.path)

    @property
    def variables(self) -> Mapping[str, str]:
        """The names of the environment variables with its secrets, by what they are."""
        password = self.registry_password_env
        return self.secrets if password is None else {**self.secrets, "registry_password": password}

    @property
    def hardware(self) -> Hardware:
        """The hardware it runs on."""
        return Hardware(self.vendor, self.region, self.accelerator, self.instance_type, self.instance_size)

    @property
    def scaling(self) -> Scaling:
        """The replicas and the timer."""
        return Scaling(self.min_replica, self.max_replica, self.scale_to_zero_timeout)

    @property
    def model(self) -> str:
        """The repository, with its revision if one is set."""
        return self.repository if self.revision is None else f"{self.repository}@{self.revision}"

    def body(self, name: str, *tags: str) -> dict[str, Any]:
        """Return the JSON that creates an endpoint with this name. Raises `UsageError` if a secret is not set."""
        scaling = self.scaling.body
        if self.scaling_metric is not None:
            scaling["measure"] = {self.scaling_metric: self.scaling_threshold}
        model = {
            "repository": self.repository,
            "revision": self.revision,
            "framework": self.framework,
            "image": self._image(),
        }
        more = {
            "task": self.task,
            "command": list(self.command),
            "args": list(self.args),
            "env": dict(self.env),
            "secrets": secret_values(self.secrets),
        }
        private = {"accountId": self.private_link_account_id, "region": self.private_link_region}
        return {
            "name": name,
            "type": self.type,
            "provider": {"vendor": self.vendor, "region": self.region},
            "compute": {
                "accelerator": self.accelerator,
                "instanceType": self.instance_type,
                "instanceSize": self.instance_size,
                "scaling": scaling,
            },
            "model": model | {key: value for key, value in more.items() if value},
            **({"tags": [*self.tags, *tags]} if self.tags or tags else {}),
            **({"privateService": private} if self.private_link_account_id is not None else {}),
            **_given(
                route=_given(domain=self.domain, path=self.path) or None, cacheHttpResponses=self.cache_http_responses
            ),
        }

    def _image(self) -> dict[str, Any]:
        image = _keyed(self.image)
        if self.registry_username is None:
            return image
        credentials = {"username": self.registry_username}
        if self.registry_password_env is not None:
            credentials |= secret_values({"password": self.registry_password_env})
        return {**image, "custom": {**image["custom"], "credentials": credentials}}


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointChanges:
    """New settings for an endpoint, as those of `EndpointSpec`. What is None or empty stays as it is.

    `scale_to_zero_timeout`: 0 means no timer. `tensor_parallel_size`, `data_parallel_size`: over how many accelerators
    an engine divides one copy of the model, and how many copies it runs; they are settings of the image.
    """

    repository: str | None = None
    accelerator: str | None = None
    instance_type: str | None = None
    instance_size: str | None = None
    revision: str | None = None
    task: str | None = None
    framework: str | None = None
    min_replica: int | None = None
    max_replica: int | None = None
    scale_to_zero_timeout: int | None = None
    scaling_metric: Literal["pendingRequests", "hardwareUsage"] | None = None
    scaling_threshold: float | None = None
    image: Mapping[str, object] | None = None
    command: Sequence[str] | None = None
    args: Sequence[str] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    type: Access | None = None
    tags: Sequence[str] | None = None
    tensor_parallel_size: int | None = None
    data_parallel_size: int | None = None
    domain: str | None = None
    path: str | None = None
    cache_http_responses: bool | None = None

    def body(self, present: Mapping[str, Any]) -> dict[str, Any]:
        """Return the JSON that changes an endpoint. Raises `UsageError` as for creation.

        `present`: the endpoint's image, which the API takes only as a whole.
        """
        metric = self.scaling_metric
        scaling = _given(
            minReplica=self.min_replica,
            maxReplica=self.max_replica,
            measure=None if metric is None else {metric: self.scaling_threshold},
        )
        if self.scale_to_zero_timeout is not None:
            scaling["scaleToZeroTimeout"] = self.scale_to_zero_timeout or None
        compute = _given(
            accelerator=self.accelerator,
            instanceType=self.instance_type,
            instanceSize=self.instance_size,
            scaling=scaling or None,
        )
        model = _given(
            repository=self.repository,
            revision=self.revision,
            task=self.task,
            framework=self.framework,
            image=self._image(present),
            command=self.command,
            args=self.args,
            env=self.env or None,
            secrets=secret_values(self.secrets) or None,
        )
        return _given(
            compute=compute or None,
            model=model or None,
            type=self.type,
            tags=self.tags,
            route=_given(domain=self.domain, path=self.path) or None,
            cacheHttpResponses=self.cache_http_responses,
        )

    def _image(self, present: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return the image to be sent: the new one, or the present one if only its sizes change."""
        sizes = _given(tensorParallelSize=self.tensor_parallel_size, dataParallelSize=self.data_parallel_size)
        if not sizes:
            return None if self.image is None else _keyed(self.image)
        image = _keyed(self.image or present)
        engine = next(iter(image), "")
        for size in sizes:
            if engine not in _DIVIDED[size]:
                raise UsageError(f"{size} is a setting of the images {' and '.join(_DIVIDED[size])}, not of {engine!r}")
        if self.image is None and "credentials" in image[engine]:
            raise UsageError("the image has credentials, which the API does not show whole: give the whole image, too")
        return {engine: {**image[engine], **sizes}}


def _keyed(image: Mapping[str, Any]) -> dict[str, Any]:
    """Return an image by its variant, as the API takes it; one that has only a URL is of your own."""
    return {"custom": dict(image)} if "url" in image else dict(image)


def _given(**values: object) -> dict[str, Any]:
    """Return the values that are set."""
    return {key: value for key, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Description:
    """What the API reports about an endpoint. `document` is the whole answer."""

    name: str
    state: str
    message: str
    url: str | None
    health_route: str
    ready: int | None
    target: int | None
    repository: str | None
    scaling: Scaling
    hardware: Hardware
    tags: tuple[str, ...]
    document: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def read(cls, document: object) -> Description:
        """Read the API's JSON. Raises `ValueError` if it is not an endpoint."""
        state, url = value_at(document, "status", "state"), value_at(document, "status", "url")
        if not isinstance(document, Mapping) or not isinstance(state, str):
            raise ValueError("there is no endpoint in it")
        if url is not None and (not isinstance(url, str) or URL(url).host is None):
            raise ValueError(f"its url is {url!r}")
        hardware = (("provider", "vendor"), ("provider", "region"), *(("compute", key) for key in COMPUTE))
        tags = document.get("tags")
        return cls(
            name=text_at(document, "name"),
            state=state,
            message=" ".join(text_at(document, "status", "message").split()),
            url=url or None,
            health_route=f"/{(text_at(document, 'healthRoute') or 'health').lstrip('/')}",
            ready=number_at(document, "status", "readyReplica"),
            target=number_at(document, "status", "targetReplica"),
            repository=text_at(document, "model", "repository") or None,
            scaling=Scaling(
                number_at(document, *_SCALING, "minReplica") or 0,
                number_at(document, *_SCALING, "maxReplica") or 1,
                number_at(document, *_SCALING, "scaleToZeroTimeout"),
            ),
            hardware=Hardware(*(text_at(document, *keys) for keys in hardware)),
            tags=tuple(str(tag) for tag in tags) if isinstance(tags, list) else (),
            document=document,
        )

    @property
    def image(self) -> Mapping[str, Any]:
        """The container, by its variant."""
        found = value_at(self.document, "model", "image")
        return found if isinstance(found, Mapping) else {}


_SCALING = ("compute", "scaling")


def check_timer(what: str, minutes: int | None) -> None:
    """Raise `ValueError` unless the API accepts this number of minutes for its timer. None means no timer."""
    if minutes is not None and (isinstance(minutes, bool) or minutes not in TIMER):
        raise ValueError(f"{what} must be {TIMER.start} to {TIMER.stop - 1} minutes, or None, not {minutes!r}")


def check_route(what: str, route: str | None) -> None:
    """Raise `ValueError` unless this is the path of a route, or None."""
    if route is not None and not route.startswith("/"):
        raise ValueError(f"{what} must begin with /, not {route!r}")


def access(what: str, value: str) -> Access:
    """Return the value as an `Access`. Raises `ValueError`, which lists the possible values, if it is not one."""
    for kind in _ACCESS:
        if value == kind:
            return kind
    if value == "protected":
        raise ValueError(
            f"{what} 'protected' was replaced by 'authenticated' (anyone with a Hugging Face account may call it); "
            "'private' is for your account only"
        )
    raise ValueError(f"{what} must be one of {', '.join(_ACCESS)}, not {value!r}")


def secret_values(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the secrets by their names in the container. Raises `UsageError` if a variable is not set."""
    for inside, variable in variables.items():
        if not os.environ.get(variable):
            raise UsageError(f"the secret {inside} is missing: set the environment variable {variable}")
    return {inside: os.environ[variable] for inside, variable in variables.items()}
