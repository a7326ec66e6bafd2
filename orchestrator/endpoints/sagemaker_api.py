"""The API of SageMaker's real-time endpoints: describe, create and delete them, and the copies of their components.

Source of the protocol: botocore 1.44 (`sagemaker`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from orchestrator.domain.errors import EndpointSilent
from orchestrator.endpoints.aws_calls import AwsCalls, AwsDeclined

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    T = TypeVar("T")

_SERVICE = "sagemaker"
_LOGS = "/aws/sagemaker/Endpoints/"  # and the endpoint's name: a log group of CloudWatch
_PAGE = 100


@dataclass(frozen=True, slots=True)
class Variant:
    """A part of an endpoint, with its instances. `least`: to which their number may fall by itself; None: it is fixed.

    `instance_type`: only a configuration says it. `named`: whether it has a model of its own, and so no components.
    """

    name: str
    instances: int
    least: int | None
    instance_type: str | None
    named: bool

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Read the variant of an endpoint or of a configuration."""
        scaling = document.get("ManagedInstanceScaling") or {}
        enabled = scaling.get("Status") == "ENABLED"
        return cls(
            str(document.get("VariantName")),
            int(document.get("CurrentInstanceCount") or document.get("InitialInstanceCount") or 0),
            int(scaling.get("MinInstanceCount", 1)) if enabled else None,
            document.get("InstanceType"),
            "ModelName" in document,
        )


@dataclass(frozen=True, slots=True)
class EndpointDescription:
    """An endpoint as the API reports it. `reason`: why it has failed. `asynchronous`: it answers into S3 only."""

    arn: str
    config: str
    status: str
    reason: str
    asynchronous: bool
    variants: tuple[Variant, ...]

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Read an endpoint."""
        return cls(
            str(document.get("EndpointArn")),
            str(document.get("EndpointConfigName")),
            str(document.get("EndpointStatus")),
            str(document.get("FailureReason") or ""),
            bool(document.get("AsyncInferenceConfig")),
            tuple(map(Variant.read, document.get("ProductionVariants") or ())),
        )

    def variant(self, name: str) -> Variant | None:
        """Return the variant of this name."""
        return next((variant for variant in self.variants if variant.name == name), None)


@dataclass(frozen=True, slots=True)
class ConfigDescription:
    """The configuration from which an endpoint is created."""

    arn: str
    asynchronous: bool
    variants: tuple[Variant, ...]

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Read a configuration."""
        variants = tuple(map(Variant.read, document.get("ProductionVariants") or ()))
        return cls(str(document.get("EndpointConfigArn")), bool(document.get("AsyncInferenceConfig")), variants)

    def arn_of_endpoint(self, name: str) -> str:
        """Return the ARN that an endpoint of this name has in the same account and region."""
        return f"{self.arn.partition(':endpoint-config/')[0]}:endpoint/{name}"


@dataclass(frozen=True, slots=True)
class ComponentDescription:
    """An inference component. `copies`: that run now. `wanted`: that were asked for."""

    endpoint: str
    variant: str
    status: str
    reason: str
    copies: int
    wanted: int

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Read a component."""
        counts = document.get("RuntimeConfig") or {}
        return cls(
            str(document.get("EndpointName")),
            str(document.get("VariantName")),
            str(document.get("InferenceComponentStatus")),
            str(document.get("FailureReason") or ""),
            int(counts.get("CurrentCopyCount") or 0),
            int(counts.get("DesiredCopyCount") or 0),
        )


@dataclass(frozen=True, slots=True)
class SageMaker:
    """A client for the endpoints of one account in one region. Its methods raise as `AwsCalls.call` does."""

    calls: AwsCalls

    # -- looking ------------------------------------------------------------------------------------------------------

    async def endpoint(self, name: str) -> EndpointDescription | None:
        """Return the endpoint as it is now, or None if it does not exist."""
        return await self._described("DescribeEndpoint", {"EndpointName": name}, EndpointDescription.read)

    async def endpoints(self) -> list[str]:
        """Return the names of all endpoints."""
        found = await self._pages("ListEndpoints", {"MaxResults": _PAGE, "SortBy": "Name"}, "Endpoints")
        return [str(endpoint["EndpointName"]) for endpoint in found]

    async def config(self, name: str) -> ConfigDescription | None:
        """Return an endpoint configuration, or None if it does not exist."""
        return await self._described("DescribeEndpointConfig", {"EndpointConfigName": name}, ConfigDescription.read)

    async def component(self, name: str) -> ComponentDescription | None:
        """Return an inference component as it is now, or None if it does not exist."""
        parameters = {"InferenceComponentName": name}
        return await self._described("DescribeInferenceComponent", parameters, ComponentDescription.read)

    async def components(self, endpoint: str) -> list[str]:
        """Return the names of all components of an endpoint."""
        where = {"EndpointNameEquals": endpoint, "MaxResults": _PAGE}
        found = await self._pages("ListInferenceComponents", where, "InferenceComponents")
        return [str(component["InferenceComponentName"]) for component in found]

    async def tags(self, arn: str) -> dict[str, str]:
        """Return the tags of an endpoint; none if it does not exist."""
        try:
            found = await self._pages("ListTags", {"ResourceArn": arn}, "Tags")
        except AwsDeclined as declined:
            if not declined.missing:
                raise
            return {}
        return {str(tag["Key"]): str(tag["Value"]) for tag in found}

    async def log_page(self, endpoint: str, parameters: Mapping[str, object]) -> Mapping[str, Any]:
        """Return a page of the events in an endpoint's log group."""
        return await self.calls.call("logs", "FilterLogEvents", {"logGroupName": f"{_LOGS}{endpoint}", **parameters})

    # -- changing -----------------------------------------------------------------------------------------------------

    async def create(self, name: str, config: str, tags: Mapping[str, str]) -> None:
        """Create an endpoint. After `EndpointSilent`, and after an `AwsDeclined` that it exists, it may be ours."""
        labels = [{"Key": key, "Value": value} for key, value in tags.items()]
        body = {"EndpointName": name, "EndpointConfigName": config, "Tags": labels}
        await self.calls.call(_SERVICE, "CreateEndpoint", body)

    async def delete(self, name: str) -> None:
        """Delete an endpoint; its configuration stays. Does nothing if it does not exist."""
        try:
            await self.calls.call(_SERVICE, "DeleteEndpoint", {"EndpointName": name})
        except AwsDeclined as declined:
            if not declined.missing:
                raise

    async def set_copies(self, component: str, count: int) -> None:
        """Ask for this number of copies of a component."""
        wanted = {"InferenceComponentName": component, "DesiredRuntimeConfig": {"CopyCount": count}}
        await self.calls.call(_SERVICE, "UpdateInferenceComponentRuntimeConfig", wanted)

    async def _described(
        self, operation: str, parameters: Mapping[str, object], read: Callable[[Mapping[str, Any]], T]
    ) -> T | None:
        try:
            return read(await self.calls.call(_SERVICE, operation, parameters))
        except AwsDeclined as declined:
            if declined.missing:
                return None
            raise
        except (ValueError, TypeError, AttributeError) as error:
            raise EndpointSilent(f"sagemaker:{operation} gave a malformed answer: {error}") from error

    async def _pages(self, operation: str, parameters: Mapping[str, object], key: str) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        token: object = None
        while True:
            more = {} if token is None else {"NextToken": token}
            page = await self.calls.call(_SERVICE, operation, {**parameters, **more})
            found += page.get(key) or ()
            following = page.get("NextToken")
            if not following or following == token:
                return found
            token = following
