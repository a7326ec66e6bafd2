"""A rollout that holds the event loop is named."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from orchestrator.engine.rollouts import blocking
from orchestrator.engine.rollouts.blocking import named_if_blocking
from orchestrator.engine.rollouts.where import is_the_users

if TYPE_CHECKING:
    from collections.abc import Callable


class _Rollout:
    """A callable object, which has no code of its own."""

    def __call__(self, until: Callable[[], object]) -> None:
        deadline = time.monotonic() + 60.0
        while not until() and time.monotonic() < deadline:
            pass


async def test_the_line_of_a_callable_object_is_named(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocking, "_BEAT", 0.01)
    monkeypatch.setattr(blocking, "_LIMIT", 0.05)
    rollout = _Rollout()
    async with named_if_blocking(rollout):
        rollout(lambda: caplog.messages)
    assert "test_blocking.py:" in caplog.text
    assert "in __call__: everything waits for it" in caplog.text or "in <lambda>: everything" in caplog.text


def test_only_files_outside_of_libraries_are_the_users() -> None:
    assert is_the_users(__file__)
    assert not is_the_users(blocking.__file__)
    assert not is_the_users(pytest.__file__)
    assert not is_the_users("<frozen importlib._bootstrap>")
