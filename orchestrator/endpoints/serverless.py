"""ServerlessEndpoint: a model that Hugging Face's router serves to everyone. It is never resumed or paused."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Literal

from yarl import URL

from orchestrator.domain.charges import use_price
from orchestrator.domain.secrets import usable_headers
from orchestrator.endpoints.foreign import ForeignControl
from orchestrator.endpoints.hf_token import HF_TOKEN, find_token
from orchestrator.endpoints.http import check_url, data_plane
from orchestrator.wires.huggingface import HuggingFaceWire, for_batches
from orchestrator.wires.openai import OpenAIChatWire
from orchestrator.wires.reask import refusal_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from orchestrator.domain.charges import UsePrice
    from orchestrator.domain.errors import RequestFailed
    from orchestrator.domain.policy import Policy
    from orchestrator.wires.wire import Wire

_ROUTED_BY_TASK = frozenset({"feature-extraction", "sentence-similarity"})  # other tasks are the model's own


@dataclass(frozen=True, slots=True)
class ServerlessEndpoint:
    """A model on Hugging Face's router.

    `route`: "hf-inference" uses the Hugging Face wire, "chat" the OpenAI chat wire with any provider that serves the
    model (`model:provider` chooses one). `task`: needed only for feature-extraction and sentence-similarity.
    `parameters`: sent with every request. `wire`: replaces the route's usual wire, and has its own parameters.
    `bill_to`: the organization that pays.
    `token_env`: as in `HuggingFaceEndpoint`.
    `price_per_request`, `price_per_million_tokens`: dollars that it charges: for an answered request, and for a million
    tokens of requests and of answers, as a pair. Costs and budgets then count it, and it may get the tail of a run.
    """

    model: str
    _: KW_ONLY
    task: str | None = None
    route: Literal["hf-inference", "chat"] = "hf-inference"
    parameters: Mapping[str, object] = field(default_factory=dict)
    wire: Wire | None = None
    token_env: str = HF_TOKEN
    bill_to: str | None = None
    base_url: str = "https://router.huggingface.co"
    startup_timeout: float = 300.0
    price_per_request: float | None = None
    price_per_million_tokens: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        use_price(self.price_per_request, self.price_per_million_tokens)
        check_url(self.base_url)
        if self.bill_to is not None:
            object.__setattr__(
                self, "bill_to", usable_headers({"X-HF-Bill-To": self.bill_to}, "bill_to")["X-HF-Bill-To"]
            )
        if self.route not in {"hf-inference", "chat"}:
            raise ValueError(f"route must be 'hf-inference' or 'chat', not {self.route!r}")
        if self.route == "chat" and self.task is not None:
            raise ValueError("the chat route has one task; leave task out")
        if self.wire is not None and self.parameters:
            raise ValueError("with wire=, set the parameters in the wire and leave parameters= out")
        if self.wire is not None and self.wire.identity.get("wire_model", self.model) != self.model:
            raise ValueError(f"the wire asks for {self.wire.identity['wire_model']}, the endpoint is {self.model}")

    @property
    def name(self) -> str:
        """The model's name."""
        return f"serverless:{self.model}"

    @property
    def url(self) -> URL:
        """The URL that requests are sent to."""
        base = URL(self.base_url)
        if self.route == "hf-inference":
            base = base / "hf-inference/models" / self.model
            base = base / "pipeline" / self.task if self.task in _ROUTED_BY_TASK else base
        return self._spoken.url(base)

    def identity(self, policy: Policy) -> Mapping[str, object]:
        """Return the model, task, route and wire."""
        about = {"kind": "serverless", "model": self.model, "task": self.task, "route": self.route}
        return {**about, **self._wire(policy).identity}

    @property
    def use_price(self) -> UsePrice | None:
        """What it charges for answers."""
        return use_price(self.price_per_request, self.price_per_million_tokens)

    async def unsendable(self, request: bytes, policy: Policy) -> RequestFailed | None:
        """Return why the wire cannot send this request, or None if it can."""
        return await refusal_of(self._wire(policy), request)

    @asynccontextmanager
    async def control(self) -> AsyncIterator[ForeignControl]:
        """Find the token. Raises `UsageError` if there is none."""
        headers = (await find_token(self.token_env)).headers
        headers = headers | ({"X-HF-Bill-To": self.bill_to} if self.bill_to else {})
        yield ForeignControl(_never_silent, lambda policy: data_plane(self.url, headers, self._wire(policy), policy))

    @property
    def _spoken(self) -> Wire:
        if self.wire is not None:
            return self.wire
        chat = self.route == "chat"
        return OpenAIChatWire(self.model, self.parameters) if chat else HuggingFaceWire(self.parameters)

    def _wire(self, policy: Policy) -> Wire:
        return for_batches(self._spoken, policy.batch_size)


async def _never_silent() -> None:
    """Return None: a probe would be billed. If the model is still loading, the first answer says so."""
