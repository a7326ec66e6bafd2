"""The control planes of SageMaker: an endpoint that is deleted and created again, or a component at zero copies.

An endpoint sleeps by not existing: its configuration, which is never touched, makes it the same again. Its name is
unique, so a creation whose answer was lost is repeated and then refused. A tag tells what runs have created, and
nothing else is deleted unless the terms are to pause always. What is being created cannot be deleted; such a pause is
repeated by `state` once it can be. A component sleeps at zero copies, and its instances are seen released. botocore
signs (`aws_access.py`), and our own HTTP client sends (`sagemaker_data.py`).
"""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from orchestrator.domain.command_line import typed
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import EndpointFailed, EndpointRefused, EndpointSilent
from orchestrator.domain.phrases import count
from orchestrator.domain.terms import Pause
from orchestrator.endpoints.aws_calls import AwsDeclined
from orchestrator.endpoints.sagemaker_data import sagemaker_data
from orchestrator.wires.huggingface import for_batches

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractAsyncContextManager

    import aiohttp

    from orchestrator.domain.policy import Policy
    from orchestrator.domain.terms import Terms
    from orchestrator.endpoints.sagemaker_api import EndpointDescription, SageMaker
    from orchestrator.endpoints.sagemaker_data import Invocation, SageMakerData
    from orchestrator.wires.wire import Wire

TAG = "orchestrator-endpoint"  # of an endpoint that a run has created; its value is the endpoint's name in the ledger
LOOK_EVERY = 5.0  # seconds; SageMaker throttles calls that describe
SETTLING = 5.0  # seconds for which a creation may come into effect after its process was killed, or its answer lost
_STATES = {
    "InService": EndpointState.AWAKE,
    "Failed": EndpointState.FAILED,
    "UpdateRollbackFailed": EndpointState.FAILED,
}  # all others change by themselves: Creating, Updating, SystemUpdating, RollingBack, Deleting
_AT_REST = {*_STATES, "OutOfService"}
_REMEDIES = {  # what SageMaker says about a failure -> what to do about it
    r"ping health check": "the container did not start: `{logs}` shows why",
    r"model data": "check the model's files in S3, and that the model's role may read them",
    r"pull|ECR|image": "check the model's image, and that the model's role may pull it",
    r"assume role|execution role": "check the role of the model",
}


@dataclass(frozen=True, slots=True)
class SageMakerAccess:
    """What a control plane works with: the API, how requests are sent, the session of probes, and the settings.

    `config`: the configuration from which the endpoint is created. `tags`: of an endpoint that we create. `copies`: of
    its component.
    """

    api: SageMaker
    invocation: Invocation
    probe: aiohttp.ClientSession
    terms: Terms
    wire: Wire
    config: str
    tags: Mapping[str, str]
    copies: int


class SageMakerControl(ABC):
    """What both ways of pausing have in common."""

    installing = False

    def __init__(self, access: SageMakerAccess) -> None:
        self.terms = access.terms
        self.look_every = LOOK_EVERY
        self._access = access
        self._api = access.api
        self._name = access.invocation.endpoint
        self._said = "not looked at yet"
        self._silent: str | None = None
        self._looked = False
        self._left = False
        self._pending = False  # a pause that SageMaker did not allow yet

    @property
    def status_text(self) -> str:
        """The provider's word for the state, with the failure and a remedy, and why it is silent."""
        return f"{self._said}; {self._silent}" if self._silent else self._said

    @abstractmethod
    async def state(self) -> EndpointState:
        """Look at the endpoint now."""

    @abstractmethod
    async def resume(self) -> None:
        """Ask it to wake."""

    @abstractmethod
    async def pause(self, *, to_zero: bool = False) -> None:
        """Ask it to pause."""

    async def price(self) -> float | None:
        """Return None: the API has no prices."""
        return None

    async def answers(self) -> bool:
        """Whether the container answers an empty request, whatever its answer is.

        Raises `EndpointRefused` if the credentials may not invoke the endpoint.
        """
        self._silent = await self._access.invocation.why_silent(self._access.probe)
        return self._silent is None

    def connect(self, policy: Policy) -> AbstractAsyncContextManager[SageMakerData]:
        """Open the data plane."""
        wire = for_batches(self._access.wire, policy.batch_size)
        return sagemaker_data(self._access.invocation, wire, policy)

    def _described(self, status: str, reason: str) -> str:
        """Return a status with the reason of a failure and what to do about it."""
        if not reason:
            return status
        remedy = next((do for sign, do in _REMEDIES.items() if re.search(sign, reason, re.IGNORECASE)), None)
        line = f"{status}: {' '.join(reason.split())}"
        return f"{line} ({remedy.format(logs=typed('endpoints', 'logs', self.terms.endpoint))})" if remedy else line

    def _put_off(self, declined: AwsDeclined, status: str) -> None:
        """Pause once SageMaker allows it. Raises `EndpointSilent` if nothing is in progress that forbids it now."""
        if status in _AT_REST:
            raise EndpointSilent(f"endpoint {self.terms.endpoint} cannot be paused yet: {declined.said}") from declined
        self._pending = True


class EndpointControl(SageMakerControl):
    """The control plane of an endpoint that sleeps by not existing; its configuration is never touched.

    It deletes an endpoint with the tag of those that runs create, and any other only if the terms are to pause always.
    """

    def __init__(self, access: SageMakerAccess) -> None:
        super().__init__(access)
        self._unsure_until = 0.0  # on the monotonic clock: until then a creation that was sent may come into effect
        self._foreign = False  # what has the name now is not what is to be paused

    async def state(self) -> EndpointState:
        """Look at the endpoint now. One that is deleted is paused; without its configuration, it is gone.

        One that could not be deleted while it was being created is deleted once it can be.
        Raises `EndpointFailed` at the first look, before anything was changed, if it is not the endpoint that we want.
        """
        shown = await self._api.endpoint(self._name)
        if self._pending and shown is not None and shown.status in _AT_REST:
            await self.pause()
            shown = await self._api.endpoint(self._name)
        if not self._looked and not self._left:
            await self._check(shown)
            self._looked = True
        if shown is None:
            return await self._absent()
        if self._foreign:
            self._said = "deleted; another endpoint has its name now, which no run created, and is left alone"
            return EndpointState.PAUSED
        self._said = self._described(shown.status, shown.reason)
        return _STATES.get(shown.status, EndpointState.STARTING)

    async def resume(self) -> None:
        """Create the endpoint from its configuration.

        If an answer is lost, the call is repeated: its name is unique, so the next answer says that it exists.
        """
        self._left = self._foreign = self._pending = False
        self._unsure_until = inf
        try:
            await self._api.create(self._name, self._access.config, {**self._access.tags, TAG: self.terms.endpoint})
        except EndpointSilent:
            self._unsure_until = time.monotonic() + SETTLING
            raise
        except AwsDeclined as declined:
            self._unsure_until = 0.0
            if not declined.exists:
                raise self._cannot_create(declined) from declined
            await self._check_there()
        except EndpointRefused:
            self._unsure_until = 0.0
            raise
        else:
            self._unsure_until = 0.0

    async def pause(self, *, to_zero: bool = False) -> None:
        """Delete the endpoint. Does nothing if there is none, or if it is being deleted."""
        self._left, self._silent = True, None
        shown = await self._api.endpoint(self._name)
        cut_short = self._unsure_until == inf
        killed = shown is None and not self._looked and not self._unsure_until  # perhaps: another process owes this
        if cut_short or killed:
            self._unsure_until = time.monotonic() + SETTLING
        self._foreign = self._pending = False
        if shown is None or shown.status == "Deleting" or not await self._may_delete(shown):
            return
        try:
            await self._api.delete(self._name)
        except AwsDeclined as declined:
            self._put_off(declined, shown.status)

    async def _absent(self) -> EndpointState:
        if time.monotonic() < self._unsure_until:
            self._said = "not there, but a creation whose answer was lost may still come into effect"
            return EndpointState.STARTING
        if not self._left and await self._api.config(self._access.config) is None:
            self._said = f"there is neither an endpoint nor an endpoint configuration {self._access.config}"
            return EndpointState.GONE
        self._said = f"deleted; its configuration {self._access.config} stays"
        return EndpointState.PAUSED

    async def _check(self, shown: EndpointDescription | None) -> None:
        """Raise `EndpointFailed` if the endpoint, or what its configuration would create, is not one for us."""
        name, config = self.terms.endpoint, self._access.config
        if shown is not None and shown.config != config:
            raise EndpointFailed(f"endpoint {name} has the configuration {shown.config}, not {config}: correct config=")
        found = await self._api.config(config)
        if found is None:
            return
        if found.asynchronous:
            raise EndpointFailed(f"endpoint {name} is asynchronous: it answers into S3 only, and cannot be used here")
        if not all(variant.named for variant in found.variants):
            raise EndpointFailed(
                f"endpoint {name} serves inference components, so it cannot be deleted for a pause: name one in "
                "component="
            )

    async def _check_there(self) -> None:
        """Look at an endpoint that was to be created and exists. Raises `EndpointFailed` if it has failed."""
        shown = await self._api.endpoint(self._name)
        if shown is not None and _STATES.get(shown.status) is EndpointState.FAILED:
            said = self._described(shown.status, shown.reason)
            name = self.terms.endpoint
            raise EndpointFailed(f"endpoint {name} exists and is {said}; delete it, then run the same command again")

    async def _may_delete(self, shown: EndpointDescription) -> bool:
        """Whether this is what is to be paused: a run has created it, or the terms are to pause always.

        If it is not, what was to be paused is deleted already, and this has taken its name. Raises `EndpointRefused` if
        we are asked to pause what was seen before, and it is not ours; or if it could not be created again.
        """
        name = self.terms.endpoint
        if (await self._api.tags(shown.arn)).get(TAG) == name:
            return True
        if self.terms.pause is not Pause.ALWAYS:
            if self._looked:
                raise EndpointRefused(
                    f"endpoint {name} was not created by a run, so it is not deleted: set pause='always' if it may be"
                )
            self._foreign = True
            return False
        if await self._api.config(shown.config) is None:
            raise EndpointRefused(
                f"endpoint {name} is not deleted: its configuration {shown.config} is gone, so it could not be created "
                "again"
            )
        return True

    def _cannot_create(self, declined: AwsDeclined) -> EndpointFailed:
        remedy = "check config=" if declined.missing else "check the configuration and the model in it"
        if declined.code == "ResourceLimitExceeded":
            remedy = "ask for a higher quota in Service Quotas, or use another instance type"
        return EndpointFailed(f"endpoint {self.terms.endpoint} cannot be created: {declined.said}: {remedy}")


class ComponentControl(SageMakerControl):
    """The control plane of an inference component, which sleeps at zero copies. Its endpoint stays.

    After a pause it counts as asleep once the instances are released too, unless other components need them.
    """

    async def state(self) -> EndpointState:
        """Look at the component now.

        Raises `EndpointFailed` at the first look, before anything was changed, if zero copies would cost as much.
        """
        component = self._access.invocation.component or ""
        found = await self._api.component(component)
        if self._pending and found is not None and found.status in _AT_REST:
            await self.pause()
            found = await self._api.component(component)
        if found is None or found.status == "Deleting":
            self._said = f"there is no inference component {component}"
            return EndpointState.GONE
        if not self._looked and not self._left:
            await self._check(found.endpoint, found.variant)
            self._looked = True
        copies = f"{found.copies} of {found.wanted} copies"
        self._said = self._described(f"{found.status}, {copies}", found.reason)
        if found.status == "Failed":
            return EndpointState.FAILED
        if found.wanted == 0:
            if (
                found.copies
                or found.status != "InService"
                or (self._left and await self._holds_instances(found.variant))
            ):
                return EndpointState.STARTING
            return EndpointState.PAUSED
        return EndpointState.AWAKE if found.copies else EndpointState.STARTING

    async def resume(self) -> None:
        """Ask for copies, unless some were asked for already."""
        self._left = self._pending = False
        component = self._access.invocation.component or ""
        found = await self._api.component(component)
        if found is None:
            raise EndpointFailed(f"there is no inference component {component}: check component=")
        if found.wanted == 0:
            await self._api.set_copies(component, self._access.copies)

    async def pause(self, *, to_zero: bool = False) -> None:
        """Ask for zero copies, unless that was done already."""
        self._left, self._silent = True, None
        component = self._access.invocation.component or ""
        found = await self._api.component(component)
        self._pending = False
        if found is None or found.wanted == 0:
            return
        try:
            await self._api.set_copies(component, 0)
        except AwsDeclined as declined:
            self._put_off(declined, found.status)

    async def _check(self, endpoint: str, variant: str) -> None:
        name = self.terms.endpoint
        if endpoint != self._name:
            raise EndpointFailed(f"endpoint {name}: the component belongs to the endpoint {endpoint}, not {self._name}")
        shown = await self._api.endpoint(self._name)
        part = None if shown is None else shown.variant(variant)
        if self.terms.pause is not Pause.NEVER and part is not None and part.least != 0:
            raise EndpointFailed(
                f"endpoint {name} would keep its instances at zero copies: give the variant {variant} "
                "ManagedInstanceScaling with a MinInstanceCount of 0, or leave component= out, or set pause='never'"
            )

    async def _holds_instances(self, variant: str) -> bool:
        """Whether the variant has instances that no other component needs: they cost until they are released."""
        shown = await self._api.endpoint(self._name)
        part = None if shown is None else shown.variant(variant)
        if part is None or part.instances == 0:
            return False
        for name in await self._api.components(self._name):
            other = await self._api.component(name) if name != self._access.invocation.component else None
            if other is not None and other.variant == variant and (other.wanted or other.copies):
                self._said += f"; {count(part.instances, 'instance')} kept for {name}"
                return False
        self._said += f"; {count(part.instances, 'instance')} not released yet"
        return True
