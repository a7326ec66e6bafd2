"""Groups items into batches: similar items together to save padding, within the limits of one request."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from orchestrator.domain.item import Item

Order: TypeAlias = Literal["length", "prefix", "input"]

BYTES_PER_TOKEN = 4  # a common rule of thumb for English text, good enough for batching
_WASTE = 0.1  # the fraction of a request that may be padding, once it is a quarter full
_PLACES = 40  # bits: enough for the item numbers of any ledger
_GOLDEN = (5**0.5 - 1) / 2  # its multiples modulo 1 are spread evenly, however many there are


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one request may carry: a number of items, and a number of padded tokens (None: no limit).

    `neighbours`: whether a batch ends where item lengths diverge, for servers that pad a batch to its longest item.
    """

    items: int
    tokens: int | None = None
    neighbours: bool = True


class ReadyItems:
    """Items that may be asked now. The next ones are at the end of the list, where taking them is cheap."""

    def __init__(self, order: Order = "length") -> None:
        self._key, self._backwards = _KEYS[order]
        self._sorted = order == "length"
        self._items: list[Item] = []
        self._ranks: list[int | bytes] = []  # the keys of the items, unless they are sorted backwards
        self._samples = 0

    def __len__(self) -> int:
        return len(self._items)

    def add(self, items: Sequence[Item]) -> None:
        """Sort the items in."""
        if len(items) == 1 and not self._backwards:
            rank = self._key(items[0])
            at = bisect_right(self._ranks, rank)
            self._ranks.insert(at, rank)
            self._items.insert(at, items[0])
        elif items:
            self._items += items
            self._items.sort(key=self._key, reverse=self._backwards)
            self._ranks = [] if self._backwards else list(map(self._key, self._items))

    def take(self, limits: Limits, *, sample: bool = False) -> list[Item]:
        """Remove and return the next batch: adjacent items within the limits, at least one. Empty if none is ready.

        `sample`: take batches from positions spread over the whole list, so that early and late ones are comparable.
        """
        items = self._items
        if not items:
            return []
        if limits.items == 1:
            del self._ranks[-1:]
            return [items.pop()]
        end = len(items)
        if sample:
            self._samples += 1
            end = max(min(limits.items, end), int(self._samples * _GOLDEN % 1 * end) + 1)
        start = end - self._fitting(end, limits)
        batch = items[start:end]
        batch.reverse()
        del items[start:end], self._ranks[start:end]
        return batch

    def _fitting(self, end: int, limits: Limits) -> int:
        """Return how many of the items before `end` fit in one request."""
        count, longest, together = 0, 0, 0
        cuts = self._sorted and limits.neighbours
        most = math.inf if limits.tokens is None else limits.tokens * BYTES_PER_TOKEN
        for item in reversed(self._items[max(0, end - limits.items) : end]):
            length = len(item.request)
            longest, together = max(longest, length), together + length
            if count and longest * (count + 1) > most:
                break
            if cuts and count * 4 >= limits.items and longest * (count + 1) * (1 - _WASTE) > together:
                break  # the gap in length may close once more items are ready
            count += 1
        return count


def padded(batch: Iterable[Item]) -> int:
    """Return the bytes of a batch's requests once each is padded to the longest."""
    lengths = [len(item.request) for item in batch]
    return max(lengths, default=0) * len(lengths)


def _length(item: Item) -> int:
    return (len(item.request) << _PLACES) - item.key  # items of equal length keep their order


def _text(item: Item) -> bytes:
    return item.request


def _place(item: Item) -> int:
    return -item.key


_KEYS: Mapping[Order, tuple[Callable[[Item], int | bytes], bool]] = {
    "length": (_length, False),
    "prefix": (_text, True),
    "input": (_place, False),
}
