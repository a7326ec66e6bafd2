"""What every test gets: no blocking call on the event loop, and a real ledger where it asks for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from blockbuster import blockbuster_ctx

from orchestrator.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def no_blocking_call_on_the_event_loop() -> Iterator[None]:
    with blockbuster_ctx("orchestrator") as detector:
        detector.functions["os.path.abspath"].deactivate()  # asks for the working folder; no disk is waited for
        yield


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store.open(str(tmp_path / "ledger.db")) as opened:
        yield opened
