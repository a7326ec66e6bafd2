"""Helpers of several suites: awkward texts, a check of user errors, and an event loop with a deadline for one test."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import pytest

    from orchestrator.domain.errors import OrchestratorError

P = ParamSpec("P")
S = TypeVar("S", bound="Suite")

AWKWARD_TEXTS = (
    "plain",
    "naïve — 日本語 🦜",
    'a "quoted", cell',
    "  spaced  ",
    "\u2028\u0085line",
    "NUL\0inside",
    "=1+1",
    "null",
)


class Suite(Protocol):
    """A conformance suite with async tests."""

    deadline: float
    """Seconds for one test. A test that takes longer fails."""


def assert_one_line(failure: pytest.ExceptionInfo[OrchestratorError], *names: object) -> None:
    """Check that a user error is one line, names these things, and says what is wrong, then `: ` and the remedy."""
    text = str(failure.value)
    assert "\n" not in text, "a user error must be one line"
    assert ": " in text, "a user error must say what is wrong, then `: `, then what to do"
    for name in names:
        assert str(name) in text, f"the error must name {name}"


def with_event_loop(
    test: Callable[Concatenate[S, P], Awaitable[None]],
) -> Callable[Concatenate[S, P], None]:
    """Run an async test in its own event loop, so that no pytest plugin is needed. A test that hangs fails."""

    @functools.wraps(test)
    def run(self: S, *args: P.args, **kwargs: P.kwargs) -> None:
        async def within_deadline() -> None:
            with anyio.fail_after(self.deadline):
                await test(self, *args, **kwargs)

        anyio.run(within_deadline)

    marked: Any = run
    return marked  # type: ignore[no-any-return]  # ParamSpec loses the method's signature
