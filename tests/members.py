"""The control planes of local endpoints with precise types: of a single server, or of several."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from orchestrator.endpoints.local_control import LocalControl
from orchestrator.endpoints.member_group import MemberGroup
from orchestrator.endpoints.replica import Replica
from orchestrator.endpoints.worker_place import UnixPlace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orchestrator.endpoints import LocalEndpoint, LocalServer


def place_of(control: LocalControl) -> UnixPlace:
    assert isinstance(control._place, UnixPlace)
    return control._place


@asynccontextmanager
async def worker_of(endpoint: LocalEndpoint) -> AsyncIterator[LocalControl]:
    async with endpoint.control() as control:
        assert isinstance(control, LocalControl)
        yield control


@asynccontextmanager
async def replica_of(server: LocalServer) -> AsyncIterator[Replica]:
    async with server.control() as control:
        assert isinstance(control, Replica)
        yield control


@asynccontextmanager
async def replicas_of(server: LocalServer) -> AsyncIterator[MemberGroup[Replica]]:
    async with server.control() as control:
        assert isinstance(control, MemberGroup)
        yield control
