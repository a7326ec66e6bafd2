from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.batching import batches
from orchestrator.domain.item import Item, Lease


@given(lengths=st.lists(st.integers(0, 50), max_size=40), size=st.integers(1, 8))
def test_every_item_is_in_one_batch_and_neighbours_are_alike(lengths: list[int], size: int) -> None:
    items = [Item(key, str(key), b"x" * length, 1, Lease(1, 1)) for key, length in enumerate(lengths)]
    cut = list(batches(items, size))
    assert sorted(item.key for batch in cut for item in batch) == list(range(len(items)))
    assert all(len(batch) == size for batch in cut[:-1])
    flat = [len(item.request) for batch in cut for item in batch]
    assert flat == sorted(flat, reverse=True)
