"""A Hugging Face endpoint as data: how to create one (`EndpointSpec`), and what the API reports (`Description`)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

from yarl import URL

from orchestrator.domain.errors import UsageError

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?")
NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
TIMER = range(15, 2881)  # minutes that the API accepts for the scale-to-zero timer
Access = Literal["private", "authenticated", "public"]  # who may call an endpoint
_ACCESS: tuple[Access, ...] = ("private", "authenticated", "public")
_METRICS = ("pendingRequests", "hardwareUsage")


@dataclass(frozen=True, slots=True)
class Hardware:
    """One kind of instance, as the price list names it."""

    vendor: str
    region: str
    accelerator: str
    instance_type: str
    instance_size: str


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
            "image": {"custom": dict(self.image)} if "url" in self.image else dict(self.image),
        }
        more = {
            "task": self.task,
            "command": list(self.command),
            "args": list(self.args),
            "env": dict(self.env),
            "secrets": secret_values(self.secrets),
        }
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
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointChanges:
    """New settings for an endpoint, as those of `EndpointSpec`. What is None or empty stays as it is.

    `scale_to_zero_timeout`: 0 means no timer.
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

    def body(self) -> dict[str, Any]:
        """Return the JSON that changes an endpoint; empty if nothing does. Raises `UsageError` as for creation."""
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
            image=self.image,
            command=self.command,
            args=self.args,
            env=self.env or None,
            secrets=secret_values(self.secrets) or None,
        )
        return _given(compute=compute or None, model=model or None, type=self.type, tags=self.tags)


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
        state, url = _at(document, "status", "state"), _at(document, "status", "url")
        if not isinstance(document, Mapping) or not isinstance(state, str):
            raise ValueError("there is no endpoint in it")
        if url is not None and (not isinstance(url, str) or URL(url).host is None):
            raise ValueError(f"its url is {url!r}")
        hardware = (("provider", "vendor"), ("provider", "region"), *(("compute", key) for key in _COMPUTE))
        tags = document.get("tags")
        return cls(
            name=_text(document, "name"),
            state=state,
            message=" ".join(_text(document, "status", "message").split()),
            url=url or None,
            health_route=f"/{(_text(document, 'healthRoute') or 'health').lstrip('/')}",
            ready=_number(document, "status", "readyReplica"),
            target=_number(document, "status", "targetReplica"),
            repository=_text(document, "model", "repository") or None,
            scaling=Scaling(
                _number(document, *_SCALING, "minReplica") or 0,
                _number(document, *_SCALING, "maxReplica") or 1,
                _number(document, *_SCALING, "scaleToZeroTimeout"),
            ),
            hardware=Hardware(*(_text(document, *keys) for keys in hardware)),
            tags=tuple(str(tag) for tag in tags) if isinstance(tags, list) else (),
            document=document,
        )


_COMPUTE = ("accelerator", "instanceType", "instanceSize")
_SCALING = ("compute", "scaling")


def check_timer(what: str, minutes: int | None) -> None:
    """Raise `ValueError` unless the API accepts this number of minutes for its timer. None means no timer."""
    if minutes is not None and (isinstance(minutes, bool) or minutes not in TIMER):
        raise ValueError(f"{what} must be {TIMER.start} to {TIMER.stop - 1} minutes, or None, not {minutes!r}")


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


def price_in(catalogue: object, wanted: Hardware) -> float | None:
    """Return dollars per hour for one replica, from the answer of GET /provider, or None if it is not listed."""
    for vendor, region, compute in _computes(catalogue):
        hardware = Hardware(vendor, region, *(_text(compute, key) for key in _COMPUTE))
        if hardware == wanted and (price := _amount(compute, "pricePerHour")) is not None:
            return price
    return None


@dataclass(frozen=True, slots=True)
class Offer:
    """Hardware on offer for one replica of an endpoint. A field is None if the catalogue does not state it.

    `architecture`: the vendor's name for the hardware. `gpu_memory_gb`: of all its accelerators together.
    `most`, `used`: the accelerators of this kind that the account may use, and those that it is using.
    """

    hardware: Hardware
    architecture: str
    accelerators: int
    memory_gb: float | None
    gpu_memory_gb: float | None
    price_per_hour: float | None
    status: str
    most: int | None
    used: int | None

    @property
    def available(self) -> bool:
        """Whether a replica is available now: the hardware is offered, and within the account's quota."""
        room = self.most is None or self.most - (self.used or 0) >= self.accelerators
        return self.status not in _NOT_OFFERED and room


_NOT_OFFERED = {"not_available", "deprecated"}  # hardware with a status that we do not know is shown


def offers_in(catalogue: object) -> tuple[Offer, ...]:
    """Return the hardware in the answer of GET /provider, by vendor and region, smaller instances first."""
    offers = [_offer(vendor, region, compute) for vendor, region, compute in _computes(catalogue)]
    return tuple(sorted(offers, key=_sort_key))


def _offer(vendor: str, region: str, compute: object) -> Offer:
    return Offer(
        hardware=Hardware(vendor, region, *(_text(compute, key) for key in _COMPUTE)),
        architecture=_text(compute, "architecture"),
        accelerators=_number(compute, "numAccelerators") or 0,
        memory_gb=_amount(compute, "memoryGb"),
        gpu_memory_gb=_amount(compute, "gpuMemoryGb"),
        price_per_hour=_amount(compute, "pricePerHour"),
        status=_text(compute, "status"),
        most=_number(compute, "quota", "maxAccelerators"),
        used=_number(compute, "quota", "usedAccelerators"),
    )


def _sort_key(offer: Offer) -> tuple[str, str, str, str, int, float]:
    """Sort by number of accelerators and price within a type, because x16 sorts before x2 as text."""
    hardware = offer.hardware
    size = offer.accelerators, offer.price_per_hour or 0.0
    return hardware.vendor, hardware.region, hardware.accelerator, hardware.instance_type, *size


def _computes(catalogue: object) -> list[tuple[str, str, object]]:
    return [
        (_text(vendor, "name"), _text(region, "name"), compute)
        for vendor in _items(catalogue, "vendors")
        for region in _items(vendor, "regions")
        for compute in _items(region, "computes")
    ]


def _items(document: object, key: str) -> list[object]:
    items = _at(document, key)
    return items if isinstance(items, list) else []


def _at(document: object, *keys: str) -> object:
    """Return the value under these nested keys, or None if there is none."""
    for key in keys:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document


def _text(document: object, *keys: str) -> str:
    value = _at(document, *keys)
    return value if isinstance(value, str) else ""


def _number(document: object, *keys: str) -> int | None:
    value = _at(document, *keys)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _amount(document: object, *keys: str) -> float | None:
    value = _at(document, *keys)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def secret_values(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the secrets by their names in the container. Raises `UsageError` if a variable is not set."""
    for inside, variable in variables.items():
        if not os.environ.get(variable):
            raise UsageError(f"the secret {inside} is missing: set the environment variable {variable}")
    return {inside: os.environ[variable] for inside, variable in variables.items()}
