from __future__ import annotations

import anyio
import pytest

from orchestrator.domain.errors import LedgerError, PauseUnconfirmed, RunStopped
from orchestrator.engine.tasks import task_group


async def test_the_first_failure_is_raised_with_a_note_of_what_may_still_cost_money() -> None:
    async def fails() -> None:
        raise LedgerError("the disk is full")

    async def fails_while_it_is_cancelled(error: Exception) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise error

    async def together() -> None:
        async with task_group() as outer:
            outer.start_soon(fails)
            async with task_group() as middle:
                middle.start_soon(fails_while_it_is_cancelled, RunStopped("cut short"))
                async with task_group() as inner:
                    inner.start_soon(fails_while_it_is_cancelled, PauseUnconfirmed("it may still be awake"))

    with pytest.raises(LedgerError, match="the disk is full") as raised:
        await together()
    assert raised.value.__notes__ == ["it may still be awake"]
