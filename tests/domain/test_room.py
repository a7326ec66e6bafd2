from __future__ import annotations

from math import inf

from orchestrator.domain.room import Room


def test_room_shrinks_to_the_requests_in_flight_when_one_more_fails_and_then_grows() -> None:
    room = Room()
    assert room.most == inf
    assert not room.sufficed()
    for others in (299, 298, 100):
        room.ran_out(others)
    assert room.most == 100
    assert [room.sufficed() for _ in range(101)].count(True) == 1
    assert room.most == 101
    room.ceiling = 70
    assert room.most == 70


def test_after_a_minute_without_room_for_a_single_request_waiting_is_pointless() -> None:
    room = Room()
    for _ in range(59):
        room.ran_out(0)
    assert (room.most, room.none) == (1, False)
    room.sufficed()
    for _ in range(60):
        assert not room.none
        room.ran_out(0)
    assert room.none
