"""Fixtures for tests of paused endpoints: a service that bills, and a job at one of its endpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.scene import Scene
from tests.hf_service import HfService, hf_service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.commands import Workplace


@pytest.fixture
def service() -> Iterator[HfService]:
    with hf_service(namespace="acme") as running:
        running.add("batch")
        yield running


@pytest.fixture
def scene(workplace: Workplace, service: HfService) -> Scene:
    return Scene(workplace, service)
