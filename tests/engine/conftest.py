"""Fixtures for tests of the engine: their ledger is real, and their time is virtual."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.engine.virtual_time import virtual_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orchestrator.store import Store


@pytest.fixture
async def store(store: Store, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """The ledger, with virtual time except in tests marked `real_time`."""
    if request.node.get_closest_marker("real_time") is not None:
        yield store
        return
    with virtual_time(asyncio.get_running_loop()):
        yield store
