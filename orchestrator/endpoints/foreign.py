"""ForeignControl: the control plane of a server that we cannot resume or pause."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from orchestrator.domain.endpoint import EndpointState

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractAsyncContextManager

    from orchestrator.domain.policy import Policy
    from orchestrator.ports import DataPlane


class Connect(Protocol):
    """A function that opens a data plane."""

    def __call__(self, policy: Policy) -> AbstractAsyncContextManager[DataPlane]:
        """Return a context manager that opens the data plane."""
        ...


@dataclass(slots=True)
class ForeignControl:
    """The server counts as awake while we use it, and as paused otherwise.

    `why_silent`: returns why the server would not answer now, or None if it would. `connect`: as in `ControlPlane`.
    """

    why_silent: Callable[[], Coroutine[object, object, str | None]]
    connect: Connect
    terms = None
    installing = False
    look_every = 0.1
    _in_use: bool = field(init=False, default=False)
    _silent: str | None = field(init=False, default=None)

    @property
    def status_text(self) -> str:
        """Whether the server is in use or, if it does not answer, why."""
        return self._silent or ("in use" if self._in_use else "not in use")

    async def answers(self) -> bool:
        """Whether the server would answer a request now."""
        self._silent = await self.why_silent()
        return self._silent is None

    async def resume(self) -> None:
        """Mark the server as in use."""
        self._in_use = True

    async def pause(self, *, to_zero: bool = False) -> None:
        """Mark the server as not in use."""
        self._in_use, self._silent = False, None

    async def state(self) -> EndpointState:
        """Return AWAKE while the server is in use, else PAUSED. Sends nothing."""
        return EndpointState.AWAKE if self._in_use else EndpointState.PAUSED

    async def price(self) -> None:
        """Return None: no price is published."""
