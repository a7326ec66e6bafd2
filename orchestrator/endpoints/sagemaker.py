"""SageMakerEndpoint: a real-time endpoint of Amazon SageMaker, which bills while it exists."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Literal

from orchestrator.domain.terms import Pause, Terms
from orchestrator.endpoints.api_calls import session_of_probes
from orchestrator.endpoints.aws_calls import AwsCalls
from orchestrator.endpoints.sagemaker_api import SageMaker
from orchestrator.endpoints.sagemaker_control import TAG, ComponentControl, EndpointControl, SageMakerAccess
from orchestrator.endpoints.sagemaker_data import Invocation
from orchestrator.wires.huggingface import HuggingFaceWire, for_batches
from orchestrator.wires.reask import refusal_of
from orchestrator.wires.wire import AnswersElsewhere

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from orchestrator.domain.errors import RequestFailed
    from orchestrator.domain.policy import Policy
    from orchestrator.wires.wire import Wire

_PAUSE_DEADLINE = 4500.0  # an endpoint cannot be deleted while it is being created, which fails after an hour
_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_REGION = re.compile(r"[a-z]{2,}(-[a-z]+)+-\d+")


@dataclass(frozen=True, slots=True)
class SageMakerEndpoint:
    """A real-time endpoint of SageMaker: created from its endpoint configuration for a run, and deleted after it.

    SageMaker has no pause. The configuration and the model stay, so the next run creates the same endpoint again.
    `name`: the endpoint's name, or REGION/NAME. Credentials, and without a region the region, are found as AWS's own
    tools find them; `profile`: the profile of ~/.aws to use.
    `config`: the endpoint configuration; by default it has the endpoint's name.
    `component`: an inference component of the endpoint. It is paused by zero copies and woken by `copies`; the endpoint
    stays. The variant must be allowed to scale to no instance.
    `tags`: of an endpoint that a run creates. `wire`: the request format; its own route is left out. `model`: what is
    served, so that answers stay valid if names change.
    `pause`: "if_resumed" leaves an endpoint that exists as it is; "always" deletes it too; or "never".
    `price_per_hour`: dollars for all its instances, since the API has no prices. `startup_timeout`, `linger`: as in
    `HuggingFaceEndpoint`.
    """

    name: str
    _: KW_ONLY
    region: str | None = None
    profile: str | None = None
    config: str | None = None
    component: str | None = None
    copies: int = 1
    tags: Mapping[str, str] = field(default_factory=dict)
    wire: Wire = field(default_factory=HuggingFaceWire)
    model: str | None = None
    startup_timeout: float = 1800.0
    pause: Pause | Literal["if_resumed", "always", "never"] = Pause.IF_RESUMED
    linger: float = 0.0
    price_per_hour: float | None = None

    def __post_init__(self) -> None:
        parts = self.name.split("/")
        if self.component is not None and len(parts) > 1 and parts[-1] == self.component:
            parts.pop()
        region = parts.pop(0) if len(parts) > 1 else self.region
        if len(parts) != 1 or not _NAME.fullmatch(parts[0]):
            raise ValueError(
                f"an endpoint of SageMaker is named NAME or REGION/NAME, in letters, digits and dashes, not "
                f"{self.name!r}"
            )
        if region is not None and not _REGION.fullmatch(region):
            raise ValueError(f"{region!r} is not the name of a region, such as eu-west-1")
        if self.region not in {None, region}:
            raise ValueError(f"the name {self.name!r} and the region {self.region!r} contradict each other")
        for setting in ("config", "component"):
            value = getattr(self, setting)
            if value is not None and not _NAME.fullmatch(value):
                raise ValueError(f"{setting} is a name of letters, digits and dashes, not {value!r}")
        object.__setattr__(self, "region", region)
        object.__setattr__(self, "name", _in_the_ledger(region, parts[0], self.component))
        self._check_values()

    def _check_values(self) -> None:
        if self.pause not in set(Pause) - {Pause.SCALE_TO_ZERO}:
            raise ValueError(f"pause must be if_resumed, always or never, not {self.pause!r}")
        if self.copies < 1:
            raise ValueError(f"copies must be at least 1, not {self.copies}")
        if self.component is None and self.copies != 1:
            raise ValueError("copies= is for an inference component: name it in component=")
        if self.component is not None and (self.config is not None or self.tags):
            raise ValueError("config= and tags= are for an endpoint that is created, and with component= none is")
        if isinstance(self.wire, AnswersElsewhere):
            raise ValueError("this wire needs several routes, and an endpoint of SageMaker has one")
        if TAG in self.tags:
            raise ValueError(f"the tag {TAG} is our own")

    @property
    def endpoint(self) -> str:
        """The endpoint's name at SageMaker."""
        name = self.name if self.region is None else self.name.removeprefix(f"{self.region}/")
        return name if self.component is None else name.removesuffix(f"/{self.component}")

    def identity(self, policy: Policy) -> Mapping[str, object]:
        """Return the model (or the configuration, or the endpoint and its component) and the wire. Sends nothing."""
        named = self.config or self.endpoint if self.component is None else [self.endpoint, self.component]
        return {"kind": "sagemaker", "model": self.model or named, **for_batches(self.wire, policy.batch_size).identity}

    async def unsendable(self, request: bytes, policy: Policy) -> RequestFailed | None:
        """Return why the wire cannot send this request, or None if it can."""
        return await refusal_of(for_batches(self.wire, policy.batch_size), request)

    @asynccontextmanager
    async def control(self) -> AsyncIterator[EndpointControl | ComponentControl]:
        """Find the credentials and the region, and open the sessions. Raises `UsageError` if there are none."""
        async with (
            self.api() as api,
            session_of_probes() as probe,
        ):
            access = SageMakerAccess(
                api,
                Invocation(api.calls.access, self.endpoint, self.component),
                probe,
                self._terms(api.calls.access.region),
                self.wire,
                self.config or self.endpoint,
                self.tags,
                self.copies,
            )
            yield EndpointControl(access) if self.component is None else ComponentControl(access)

    @asynccontextmanager
    async def api(self) -> AsyncIterator[SageMaker]:
        """Open the API of its region. Raises `UsageError` if there are no credentials."""
        async with AwsCalls.open(self.region, self.profile) as calls:
            yield SageMaker(calls)

    def _terms(self, region: str) -> Terms:
        pause = Pause(self.pause)
        settings = {
            "component": self.component,
            "config": self.config,
            "profile": self.profile,
            "pause": str(pause) if pause is Pause.ALWAYS else None,
        }
        return Terms(
            endpoint=_in_the_ledger(region, self.endpoint, self.component),
            pause_with={"kind": "sagemaker", "name": f"{region}/{self.endpoint}"}
            | {key: value for key, value in settings.items() if value},
            pause=pause,
            linger=self.linger,
            price_per_hour=self.price_per_hour,
            pause_deadline=_PAUSE_DEADLINE,
        )


def _in_the_ledger(region: str | None, endpoint: str, component: str | None) -> str:
    return "/".join(part for part in (region, endpoint, component) if part is not None)
