"""HuggingFaceEndpoint: a managed endpoint that bills while it is awake."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Literal

import anyio
from yarl import URL

from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import EndpointFailed, EndpointLost, EndpointRefused, EndpointSilent, UsageError
from orchestrator.domain.policy import Backoff
from orchestrator.domain.terms import Pause, Terms
from orchestrator.endpoints.api_calls import keeps_secrets, session_of_probes
from orchestrator.endpoints.hf_api import Management
from orchestrator.endpoints.hf_calls import API_URL, Declined, health_status
from orchestrator.endpoints.hf_spec import NAME, NAMESPACE, EndpointSpec, Scaling, check_timer
from orchestrator.endpoints.hf_token import HF_TOKEN
from orchestrator.endpoints.http import data_plane
from orchestrator.wires.failures import from_platform_answer
from orchestrator.wires.huggingface import HuggingFaceWire, for_batches
from orchestrator.wires.reask import refusal_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    import aiohttp

    from orchestrator.domain.errors import RequestFailed
    from orchestrator.domain.policy import Policy
    from orchestrator.endpoints.hf_spec import Description
    from orchestrator.endpoints.http import HttpData
    from orchestrator.wires.wire import Wire

EPHEMERAL_TAG = "orchestrator-ephemeral"  # only endpoints with this tag are ever deleted
_ARMINGS = 4  # times that we try to set the scale-to-zero timer
_BETWEEN_ARMINGS = Backoff(first=0.25, cap=2.0)
_OK = 200
_FORBIDDEN = {401, 403}

_STATES = {
    "paused": EndpointState.PAUSED,
    "scaledToZero": EndpointState.SCALED_TO_ZERO,
    "pending": EndpointState.STARTING,
    "initializing": EndpointState.STARTING,
    "updating": EndpointState.STARTING,
    "running": EndpointState.AWAKE,
    "failed": EndpointState.FAILED,
    "updateFailed": EndpointState.FAILED,
}


@dataclass(frozen=True, slots=True)
class HuggingFaceEndpoint:
    """An endpoint of Hugging Face Inference Endpoints: resumed for a run, and afterwards paused as `pause` says.

    `name`: its name, or namespace/name. Without a namespace, that of the token's owner is used.
    `token_env`: the variable with the token; HF_TOKEN stands for every place where `huggingface_hub` looks.
    `wire`: the request format. Inputs are sent as lists if `policy.batch_size` is above 1.
    `model`: the repository that it must serve. It also names the model in the ledger, so that answers stay valid if the
    endpoint changes.
    `pause`: "if_resumed" restores the state in which it was found; or "always", "never", "scale_to_zero".
    `linger`: see `Terms`. `price_per_hour`: dollars per replica; looked up by default.
    `scale_to_zero_minutes`: the provider's own timer, 15 to 2880. It is set after each resume if the endpoint has none;
    None leaves the timer alone. `path`: the route under the endpoint's URL; a wire adds its own if it is missing.
    `lifecycle`: an "ephemeral" endpoint is created from `create` for the run and deleted after it.
    """

    name: str
    _: KW_ONLY
    namespace: str | None = None
    token_env: str = HF_TOKEN
    wire: Wire = field(default_factory=HuggingFaceWire)
    model: str | None = None
    startup_timeout: float = 1800.0
    pause: Pause | Literal["if_resumed", "always", "never", "scale_to_zero"] = Pause.IF_RESUMED
    linger: float = 0.0
    price_per_hour: float | None = None
    scale_to_zero_minutes: int | None = 15
    api_url: str | None = None
    path: str = "/"
    lifecycle: Literal["kept", "ephemeral"] = "kept"
    create: EndpointSpec | None = None

    def __post_init__(self) -> None:
        namespace, _, name = self.name.rpartition("/")
        if not NAME.fullmatch(name):
            raise ValueError(f"an endpoint is named with lower-case letters, digits and dashes, not {name!r}")
        if namespace and self.namespace not in {None, namespace}:
            raise ValueError(f"the name {self.name!r} and the namespace {self.namespace!r} contradict each other")
        namespace = namespace or self.namespace or ""
        if (namespace or self.namespace is not None) and not NAMESPACE.fullmatch(namespace):
            raise ValueError(f"{namespace!r} is not the name of a Hugging Face account")
        object.__setattr__(self, "namespace", namespace or None)
        object.__setattr__(self, "name", f"{namespace}/{name}" if namespace else name)
        self._check_values()

    def _check_values(self) -> None:
        if self.pause not in tuple(Pause):
            raise ValueError(f"pause must be one of {', '.join(Pause)}, not {self.pause!r}")
        for name, least in (("startup_timeout", 0.001), ("linger", 0.0), ("price_per_hour", 0.0)):
            value = getattr(self, name)
            valid = isinstance(value, int | float) and not isinstance(value, bool) and value >= least
            if not valid and not (value is None and name == "price_per_hour"):
                raise ValueError(f"{name} must be a number of at least {least:g}, not {value!r}")
        check_timer("scale_to_zero_minutes", self.scale_to_zero_minutes)
        if not self.path.startswith("/"):
            raise ValueError(f"path must begin with /, not {self.path!r}")
        if not self.token_env:
            raise ValueError("token_env must name an environment variable")
        if self.lifecycle not in {"kept", "ephemeral"}:
            raise ValueError(f"lifecycle must be 'kept' or 'ephemeral', not {self.lifecycle!r}")
        if self.lifecycle == "kept" and self.create is not None:
            raise ValueError("create= needs lifecycle='ephemeral': no other endpoint is created")
        if self.lifecycle == "ephemeral" and Pause(self.pause) is not Pause.IF_RESUMED:
            raise ValueError("an ephemeral endpoint is deleted after the run; leave pause= out")

    def identity(self, policy: Policy) -> Mapping[str, object]:
        """Return the model (or the endpoint's name), the route and the wire. Sends nothing."""
        if self.lifecycle == "ephemeral" and self.create is None:
            raise UsageError(
                f"endpoint {self.name} is ephemeral and cannot be created: say how with create=EndpointSpec(...)"
            )
        return {
            "kind": "huggingface",
            "model": self.model or (self.name if self.create is None else self.create.model),
            "path": self.path,
            **for_batches(self.wire, policy.batch_size).identity,
        }

    async def unsendable(self, request: bytes, policy: Policy) -> RequestFailed | None:
        """Return why the wire cannot send this request, or None if it can."""
        return await refusal_of(for_batches(self.wire, policy.batch_size), request)

    @asynccontextmanager
    async def control(self) -> AsyncIterator[HuggingFaceControl]:
        """Find the token and the namespace, and open the sessions. Raises `UsageError` if there is no token."""
        async with (
            Management.open(self.namespace, token_env=self.token_env, api_url=self.api_url) as management,
            session_of_probes() as probe,
        ):
            yield HuggingFaceControl(self, management, probe)


class HuggingFaceControl:
    """The control plane of one managed endpoint. An ephemeral one is created and deleted, not resumed and paused."""

    installing = False
    look_every = 4.0  # the health route is tried more often, and says when the endpoint is ready

    def __init__(self, endpoint: HuggingFaceEndpoint, management: Management, probe: aiohttp.ClientSession) -> None:
        self._endpoint = endpoint
        self._name = endpoint.name.rpartition("/")[2]
        self._ephemeral = endpoint.lifecycle == "ephemeral"
        self._management = management
        self._probe = probe
        self._terms = self._make_terms()
        self._found: Description | None = None  # as it was before we changed anything
        self._shown: Description | None = None  # as it was at the last look
        self._said = "not looked at yet"
        self._silent: str | None = None  # why we could not connect the last time that we tried
        self._created = False
        self._left = False

    @property
    def terms(self) -> Terms:
        """How and when the endpoint is paused."""
        return self._terms

    @property
    def status_text(self) -> str:
        """The provider's word for the state, with the failure, the replicas that are ready, and why it is silent."""
        return f"{self._said}; {self._silent}" if self._silent else self._said

    async def state(self) -> EndpointState:
        """Look at the endpoint now.

        Raises `EndpointFailed` at the first look, before anything was changed, if it is not the endpoint that we want.
        """
        shown = await self._management.get(self._name)
        self._shown = shown
        if shown is None:
            await self._management.list()  # a 404 counts only if this token may list the namespace
            self._said = ("deleted" if self._left else "not created yet") if self._ephemeral else "not there"
            state = EndpointState.PAUSED if self._ephemeral else EndpointState.GONE
        else:
            state = _STATES.get(shown.state, EndpointState.STARTING)
            self._said = _status_text(shown, state)
            if self._found is None:
                self._found = shown
                self._check_expected(shown)
        return state

    async def price(self) -> float | None:
        """Return dollars per hour for one replica, on the hardware at the last look or else that of `create`."""
        create, shown = self._endpoint.create, self._shown
        hardware = shown.hardware if shown is not None else create.hardware if create is not None else None
        return None if hardware is None else await self._management.price(hardware)

    async def resume(self) -> None:
        """Resume or create the endpoint, and confirm that the provider's scale-to-zero timer is set.

        That timer is the last safeguard that ends the billing.
        """
        self._left = False
        before = self._shown
        if before is None:
            await self.state()
            before = self._shown
        if before is None:
            before = shown = self._found = await self._create()
        else:
            shown = await self._resume()
        self._shown = shown
        if before.state == "scaledToZero":
            await self.answers()  # a request wakes it
        await self._arm(shown, (self._found or before).scaling)

    async def answers(self) -> bool:
        """Whether the health route answers 200.

        Raises `EndpointRefused` if the token may not use it, as waiting would not help, and `EndpointFailed` if the
        token would be sent unencrypted.
        """
        route = "/health" if self._shown is None else self._shown.health_route
        url = self._data_url(route)
        if url is None:
            return False
        status, self._silent = await health_status(self._probe, url, self._management.calls.token.headers)
        if status in _FORBIDDEN:
            raise EndpointRefused(
                f"endpoint {self._terms.endpoint} answers {status} on its health route: the token may manage it, "
                "but not send requests to it; it needs the scope inference.endpoints.infer.write"
            )
        return status == _OK

    async def pause(self, *, to_zero: bool = False) -> None:
        """Pause the endpoint, scale it to zero, or delete it. Does nothing if it is already asleep or gone."""
        self._left, self._silent = True, None
        actions = [self._management.scale_to_zero] if to_zero and not self._ephemeral else []
        refusal = ""
        for action in (*actions, self._delete_or_pause):
            try:
                await action(self._name)
            except Declined as declined:
                refusal = str(declined)
            else:
                return
            shown = await self._management.get(self._name)
            if shown is None or (_STATES.get(shown.state, EndpointState.STARTING).asleep and not self._ephemeral):
                return
        raise EndpointSilent(f"endpoint {self._terms.endpoint} cannot be paused yet: {refusal}")

    @asynccontextmanager
    async def connect(self, policy: Policy) -> AsyncIterator[HttpData]:
        """Open the data plane at the endpoint's URL and `path`. Raises `EndpointFailed` if it serves another model."""
        url = self._data_url(self._endpoint.path)
        if url is None or self._shown is None:
            raise EndpointLost(f"endpoint {self._terms.endpoint} has no URL")
        self._check_expected(self._shown)
        headers = self._management.calls.token.headers
        wire = for_batches(self._endpoint.wire, policy.batch_size)
        async with data_plane(url, headers, wire, policy, failure=from_platform_answer) as data:
            yield data

    # -- looking ------------------------------------------------------------------------------------------------------

    def _make_terms(self) -> Terms:
        endpoint, api_url = self._endpoint, self._management.calls.api_url
        name = f"{self._management.namespace}/{self._name}"
        settings = {
            "token_env": endpoint.token_env if endpoint.token_env != HF_TOKEN else None,
            "api_url": api_url if api_url != API_URL else None,
            "lifecycle": endpoint.lifecycle if self._ephemeral else None,
        }
        return Terms(
            endpoint=name,
            pause_with={"kind": "huggingface", "name": name} | {key: value for key, value in settings.items() if value},
            pause=Pause.ALWAYS if self._ephemeral else Pause(endpoint.pause),
            linger=endpoint.linger,
            price_per_hour=endpoint.price_per_hour,
        )

    def _check_expected(self, shown: Description) -> None:
        endpoint = self._endpoint
        if not self._ours(shown):
            raise EndpointFailed(
                f"endpoint {self._terms.endpoint} already exists and was not created by a run: it would be deleted; "
                "give the ephemeral endpoint another name"
            )
        expected = endpoint.model or (None if endpoint.create is None else endpoint.create.repository)
        if expected and shown.repository != expected:
            raise EndpointFailed(
                f"endpoint {self._terms.endpoint} serves {shown.repository}, not {expected}: correct model="
            )

    def _ours(self, shown: Description) -> bool:
        """Whether the endpoint is not ephemeral, or was created by a run and so may be deleted after it."""
        return not self._ephemeral or self._created or EPHEMERAL_TAG in shown.tags

    def _data_url(self, route: str) -> URL | None:
        if self._shown is None or self._shown.url is None:
            return None
        url = URL(self._shown.url.rstrip("/") + route)
        if not keeps_secrets(url):
            raise EndpointFailed(f"endpoint {self._terms.endpoint} is at {url}: no token is sent there unencrypted")
        return url

    # -- changing -----------------------------------------------------------------------------------------------------

    async def _create(self) -> Description:
        endpoint = self._endpoint
        if not self._ephemeral or endpoint.create is None:
            raise EndpointFailed(f"there is no endpoint {self._terms.endpoint}: check its name, or create it")
        body = endpoint.create.body(self._name, EPHEMERAL_TAG)
        try:
            created = await self._management.create(body)
        except Declined as declined:
            if declined.conflict and (existing := await self._management.get(self._name)) is not None:
                self._check_expected(existing)
                return existing
            raise
        self._created = True
        return created

    async def _resume(self) -> Description:
        try:
            return await self._management.resume(self._name)
        except Declined as declined:
            if not declined.conflict and "already running" not in declined.said.lower():
                raise
            shown = await self._management.get(self._name)
            if shown is None or shown.state == "paused":
                raise
            return shown

    async def _arm(self, shown: Description, found: Scaling) -> None:
        """Set the timer, and read it back to confirm it: a resume may have reset it along with the replicas."""
        if self._endpoint.scale_to_zero_minutes is None:
            return
        minutes = found.scale_to_zero_timeout or self._endpoint.scale_to_zero_minutes
        wanted, refusal = Scaling(0, found.max_replica, minutes), ""
        for attempt in range(_ARMINGS):
            await anyio.sleep(_BETWEEN_ARMINGS.delay(attempt, 0.0) if attempt else 0.0)
            if shown.scaling != wanted:
                try:
                    await self._management.update(self._name, {"compute": {"scaling": wanted.body}})
                except Declined as declined:
                    refusal = f" ({declined})"
            read_back = await self._management.get(self._name)
            if read_back is None:
                raise EndpointFailed(f"endpoint {self._terms.endpoint} was deleted while it was being resumed")
            self._shown = shown = read_back
            if shown.scaling == wanted:
                return
        raise EndpointFailed(
            f"endpoint {self._terms.endpoint}: the provider's scale-to-zero timer could not be set{refusal}; "
            "set scale_to_zero_minutes=None to go on without"
        )

    async def _delete_or_pause(self, name: str) -> None:
        if not self._ephemeral:
            await self._management.pause(name)
        elif (shown := await self._management.get(name)) is not None:
            if not self._ours(shown):
                raise EndpointRefused(f"endpoint {self._terms.endpoint} was not created by a run, so it is left alone")
            await self._management.delete(name)


def _status_text(shown: Description, state: EndpointState) -> str:
    if state is EndpointState.FAILED:
        return f"{shown.state}: {shown.message or 'the provider does not say why'}"
    if state.asleep or shown.ready is None or shown.target is None:
        return shown.state
    return f"{shown.state}, {shown.ready} of {shown.target} replicas ready"
