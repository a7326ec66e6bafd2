"""HuggingFaceSpaceEndpoint: the app of a Hugging Face Space, which bills on paid hardware while it runs."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Literal

from orchestrator.domain.moment import seconds_of
from orchestrator.domain.terms import Pause, Terms
from orchestrator.endpoints.api_calls import session_of_probes
from orchestrator.endpoints.hf_calls import HfCalls
from orchestrator.endpoints.hf_space_control import SpaceAccess, SpaceControl
from orchestrator.endpoints.hf_spaces_api import SCOPE, Spaces
from orchestrator.endpoints.hf_token import HF_TOKEN
from orchestrator.wires.gradio import GradioWire
from orchestrator.wires.huggingface import for_batches
from orchestrator.wires.reask import refusal_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from orchestrator.domain.errors import RequestFailed
    from orchestrator.domain.policy import Policy
    from orchestrator.wires.wire import Wire

OF_SPACES = "spaces/"  # the beginning of the names of these endpoints, as in the addresses of the Hub
_SPACE = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class HuggingFaceSpaceEndpoint:
    """The app of a Hugging Face Space: restarted for a run, and afterwards paused as `pause` says.

    `space`: owner/name. Its name as an endpoint is spaces/owner/name.
    `wire`: the request format: a function of a Gradio app by default, or that of the server in a Docker Space.
    `path`: the route under the Space's URL; a wire adds its own if it is missing. `health`: a route that answers 200
    once the app is ready.
    `hardware`: what it has to run on, as in `hf spaces hardware`. It is requested before a restart; a Space that is
    running on other hardware is left alone. None: what it has.
    `sleep_time`: after how long without a request the provider puts a Space on paid hardware to sleep: "15m", "1h". It
    is set after each restart if the Space has none or a longer one; None leaves it alone.
    `model`: what the app serves, so that answers stay valid if it moves to another Space.
    `pause`: "if_resumed" (a Space that was running is left running), "always" or "never". One that was found asleep is
    paused too, because nothing puts a Space to sleep at once.
    `token_env`, `startup_timeout`, `linger`: as in `HuggingFaceEndpoint`. `price_per_hour`: dollars, looked up by
    default. The token goes to the app only if the Space is private.
    """

    space: str
    _: KW_ONLY
    wire: Wire = field(default_factory=GradioWire)
    path: str = "/"
    health: str = "/"
    hardware: str | None = None
    sleep_time: str | None = "15m"
    model: str | None = None
    token_env: str = HF_TOKEN
    startup_timeout: float = 1800.0
    pause: Pause | Literal["if_resumed", "always", "never"] = Pause.IF_RESUMED
    linger: float = 0.0
    price_per_hour: float | None = None

    def __post_init__(self) -> None:
        if not _SPACE.fullmatch(self.space):
            raise ValueError(f"a Space is named OWNER/NAME, not {self.space!r}")
        for setting in ("path", "health"):
            if not getattr(self, setting).startswith("/"):
                raise ValueError(f"{setting} must begin with /, not {getattr(self, setting)!r}")
        if self.sleep_time is not None and seconds_of(self.sleep_time) < 1:
            raise ValueError(f"sleep_time must be at least a second, not {self.sleep_time!r}")
        if self.pause not in set(Pause) - {Pause.SCALE_TO_ZERO}:
            raise ValueError(f"pause must be if_resumed, always or never, not {self.pause!r}")

    @property
    def name(self) -> str:
        """Its name in the ledger, which no Inference Endpoint can have."""
        return OF_SPACES + self.space

    def identity(self, policy: Policy) -> Mapping[str, object]:
        """Return the model (or the Space), the route and the wire. Sends nothing."""
        wire = for_batches(self.wire, policy.batch_size)
        return {"kind": "huggingface_space", "model": self.model or self.space, "path": self.path, **wire.identity}

    async def unsendable(self, request: bytes, policy: Policy) -> RequestFailed | None:
        """Return why the wire cannot send this request, or None if it can."""
        return await refusal_of(for_batches(self.wire, policy.batch_size), request)

    @asynccontextmanager
    async def control(self) -> AsyncIterator[SpaceControl]:
        """Find the token, and open the sessions. Raises `UsageError` if there is no token."""
        async with (
            self.spaces() as spaces,
            session_of_probes() as probe,
        ):
            yield SpaceControl(
                SpaceAccess(
                    name=self.name,
                    space=self.space,
                    terms=self._terms(),
                    spaces=spaces,
                    probe=probe,
                    hardware=self.hardware,
                    longest_sleep=None if self.sleep_time is None else int(seconds_of(self.sleep_time)),
                    path=self.path,
                    health=self.health,
                    wire=self.wire,
                )
            )

    @asynccontextmanager
    async def spaces(self) -> AsyncIterator[Spaces]:
        """Open the API for the Spaces of its owner. Raises `UsageError` if there is no token."""
        owner = self.space.partition("/")[0]
        async with HfCalls.open(owner, token_env=self.token_env, scope=SCOPE) as calls:
            yield Spaces(calls)

    def _terms(self) -> Terms:
        kept = {"kind": "huggingface_space", "space": self.space}
        return Terms(
            endpoint=self.name,
            pause_with=kept | ({"token_env": self.token_env} if self.token_env != HF_TOKEN else {}),
            pause=Pause(self.pause),
            linger=self.linger,
            price_per_hour=self.price_per_hour,
        )
