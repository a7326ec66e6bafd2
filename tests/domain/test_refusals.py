from __future__ import annotations

from orchestrator.domain.refusals import Refusals


def test_an_item_is_refused_alone_once_others_succeed_after_its_first_refusal() -> None:
    refusals = Refusals()
    assert refusals.refused(1.0, 7) == 1
    assert refusals.refused(2.0, 7) == 1  # nothing has succeeded since: it may be the server
    refusals.succeeded(begun=0.5)  # begun before
    assert refusals.refused(3.0, 7) == 1
    refusals.succeeded(begun=3.5)
    assert [refusals.refused(4.0, 7), refusals.refused(5.0, 7)] == [2, 3]
    assert (refusals.alone(7), refusals.alone(8)) == (3, 0)


def test_an_item_is_not_alone_if_another_one_is_refused_for_the_first_time() -> None:
    refusals = Refusals()
    refusals.refused(1.0, 7)
    refusals.succeeded(begun=1.5)
    assert refusals.refused(2.0, 7) == 2
    refusals.refused(3.0, 8)
    assert refusals.refused(4.0, 7) == 1
    assert refusals.refused(5.0, 7) == 2
    refusals.refused_together(6.0)
    assert refusals.refused(7.0, 7) == 1


def test_two_items_that_are_always_refused_both_count_as_refused_alone() -> None:
    refusals = Refusals()
    refusals.refused(1.0, 7)
    refusals.refused(1.5, 8)
    refusals.succeeded(begun=2.0)
    refusals.refused(3.0, 7)
    assert [refusals.refused(4.0, key) for key in (7, 8, 7, 8)] == [2, 2, 3, 3]
