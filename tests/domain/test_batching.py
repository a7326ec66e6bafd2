from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.batching import BYTES_PER_TOKEN, Limits, Order, ReadyItems, padded
from orchestrator.domain.item import Item, Lease

if TYPE_CHECKING:
    from collections.abc import Sequence


def items_of(texts: Sequence[bytes]) -> list[Item]:
    return [Item(key, str(key), text, 1, Lease(1, 1)) for key, text in enumerate(texts)]


def drained(ready: ReadyItems, limits: Limits, *, sample: bool = False) -> list[list[Item]]:
    batches = []
    while batch := ready.take(limits, sample=sample):
        batches.append(batch)
    return batches


@given(
    lengths=st.lists(st.lists(st.integers(0, 50), max_size=20), max_size=4),
    items=st.integers(1, 8),
    tokens=st.none() | st.integers(1, 60),
    sample=st.booleans(),
)
def test_every_item_is_in_exactly_one_batch_and_no_batch_exceeds_the_limits(
    lengths: list[list[int]], items: int, tokens: int | None, *, sample: bool
) -> None:
    ready, given_items = ReadyItems(), items_of([b"x" * length for some in lengths for length in some])
    start = 0
    for some in lengths:
        ready.add(given_items[start : start + len(some)])
        start += len(some)
    cut = drained(ready, Limits(items, tokens), sample=sample)
    assert sorted(item.key for batch in cut for item in batch) == list(range(len(given_items)))
    for batch in cut:
        assert len(batch) <= items
        assert tokens is None or len(batch) == 1 or padded(batch) <= tokens * BYTES_PER_TOKEN
    if not sample:
        flat = [len(item.request) for batch in cut for item in batch]
        assert flat == sorted(flat, reverse=True)
        assert tokens is not None or all(len(batch) * 4 >= items for batch in cut[:-1])


@pytest.mark.parametrize(
    ("order", "expected"), [("length", [2, 0, 1, 3]), ("prefix", [3, 1, 0, 2]), ("input", [0, 1, 2, 3])]
)
def test_items_are_taken_in_the_configured_order(order: Order, expected: list[int]) -> None:
    ready = ReadyItems(order)
    ready.add(items_of([b"Long: c", b"Doc: b", b"Long: every", b"Doc: "]))
    assert [item.key for batch in drained(ready, Limits(1)) for item in batch] == expected


def test_batches_of_similar_length_need_little_padding() -> None:
    lengths = [10 + (number * 37 % 400) ** 2 // 400 for number in range(1000)]
    texts = items_of([b"x" * length for length in lengths])
    unsorted = sum(padded(texts[at : at + 32]) for at in range(0, len(texts), 32))
    ready = ReadyItems()
    ready.add(texts)
    asked = sum(padded(batch) for batch in drained(ready, Limits(32)))
    assert asked < sum(lengths) * 1.05 < unsorted / 1.4


def test_a_server_that_does_not_pad_gets_full_requests() -> None:
    ready = ReadyItems()
    ready.add(items_of([b"x" * 2**number for number in range(10)]))
    batches = drained(ready, Limits(6, neighbours=False))
    assert [[item.key for item in batch] for batch in batches] == [[9, 8, 7, 6, 5, 4], [3, 2, 1, 0]]


@pytest.mark.parametrize(("long", "expected"), [(4, [4, 12]), (6, [6, 10]), (2, [4, 12]), (0, [16])])
def test_a_request_that_is_a_quarter_full_ends_where_lengths_diverge(long: int, expected: list[int]) -> None:
    ready = ReadyItems()
    ready.add(items_of([b"x" * 1000] * long + [b"x" * 10] * (16 - long)))
    assert [len(batch) for batch in drained(ready, Limits(16))] == expected
