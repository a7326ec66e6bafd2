"""A workplace for every test, and one inference server for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.commands import Workplace
from tests.servers import InferenceServer, inference_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def one_server() -> Iterator[InferenceServer]:
    with inference_server() as server:
        yield server


@pytest.fixture
def server(one_server: InferenceServer) -> InferenceServer:
    one_server.reset()
    return one_server


@pytest.fixture
def workplace(tmp_path: Path, server: InferenceServer) -> Iterator[Workplace]:
    workplace = Workplace(tmp_path, server.url)
    yield workplace
    left = workplace.processes()
    for process in left:
        process.kill()
    assert not left
