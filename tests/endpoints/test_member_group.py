"""A group of members as one control plane: what fails at one of them does not keep the others from it."""

from __future__ import annotations

import pytest

from orchestrator.domain.errors import EndpointFailed
from orchestrator.endpoints.member_group import MemberGroup
from tests.engine.scripted import Scripted, _Control


class Failing(_Control):
    async def resume(self) -> None:
        raise EndpointFailed("no power")

    async def pause(self, *, to_zero: bool = False) -> None:
        raise EndpointFailed(f"no answer, to_zero={to_zero}")


async def test_all_members_are_asked_and_the_failure_of_one_is_raised_itself() -> None:
    endpoints = [Scripted(name="bad"), Scripted(name="good")]
    group = MemberGroup([Failing(endpoints[0]), _Control(endpoints[1])])
    with pytest.raises(EndpointFailed, match="no power"):
        await group.resume()
    with pytest.raises(EndpointFailed, match="no answer"):
        await group.pause()
    assert endpoints[1].calls == ["resume", "pause"]
