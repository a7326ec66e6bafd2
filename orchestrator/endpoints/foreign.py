"""ForeignControl: the control plane of a server that is not ours to wake or to pause."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol

from orchestrator.domain.endpoint import EndpointState

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractAsyncContextManager

    from orchestrator.domain.policy import Policy
    from orchestrator.domain.terms import Terms
    from orchestrator.ports import DataPlane


class Connect(Protocol):
    """How a data plane is opened."""

    def __call__(self, policy: Policy) -> AbstractAsyncContextManager[DataPlane]:
        """Open it."""
        ...


@dataclass(slots=True)
class ForeignControl:
    """Not using it is as paused as it gets, and nobody but the data plane can say how it is.

    `why_silent`: says why it would not answer now; None where it would. `connect`: as `ControlPlane` has it.
    """

    why_silent: Callable[[], Coroutine[object, object, str | None]]
    connect: Connect
    terms: ClassVar[Terms | None] = None
    installing: ClassVar[bool] = False
    look_every: ClassVar[float] = 0.1
    _in_use: bool = field(init=False, default=False)
    _silent: str | None = field(init=False, default=None)

    @property
    def said(self) -> str:
        """Whether it is used or, where it does not answer, why."""
        return self._silent or ("in use" if self._in_use else "not in use")

    async def answers(self) -> bool:
        """Whether it would answer a request now."""
        self._silent = await self.why_silent()
        return self._silent is None

    async def resume(self) -> None:
        """Use it."""
        self._in_use = True

    async def pause(self, *, to_zero: bool = False) -> None:
        """Use it no more."""
        self._in_use, self._silent = False, None

    async def state(self) -> EndpointState:
        """Whether it is used. Asks nobody."""
        return EndpointState.AWAKE if self._in_use else EndpointState.PAUSED

    async def price(self) -> None:
        """Nobody publishes one."""
