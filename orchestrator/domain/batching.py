"""Items -> batches: neighbours together, so that padding is not paid for, within what one request may carry."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from orchestrator.domain.item import Item

Order: TypeAlias = Literal["length", "prefix", "input"]

BYTES_PER_TOKEN = 4  # a common rule of thumb for English text; batches need no better one
_WASTE = 0.1  # of a request may be padding, once it is a quarter full
_PLACES = 40  # bits, more than any ledger has items
_GOLDEN = (5**0.5 - 1) / 2  # multiples of it, modulo 1, spread evenly however many there are


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may carry: so many items, and so many padded tokens (None: as many as there are).

    `neighbours`: whether a request ends where lengths part, for a server that pads all of it to its longest item.
    """

    items: int
    tokens: int | None = None
    neighbours: bool = True


class ReadyItems:
    """Items that may be asked now. The next ones stand at the end of the list, where they are cheap to take."""

    def __init__(self, order: Order = "length") -> None:
        self._key, self._backwards = _KEYS[order]
        self._sorted = order == "length"
        self._items: list[Item] = []
        self._samples = 0

    def __len__(self) -> int:
        return len(self._items)

    def add(self, items: Iterable[Item]) -> None:
        """Put them where they belong."""
        self._items += items
        self._items.sort(key=self._key, reverse=self._backwards)

    def take(self, limits: Limits, *, sample: bool = False) -> list[Item]:
        """The next batch: neighbours, at least one item, no more than the limits allow. Empty where nothing is ready.

        `sample`: from anywhere, in turn, so that batches of one time are comparable with those of another.
        """
        items = self._items
        if not items:
            return []
        if limits.items == 1:
            return [items.pop()]
        end = len(items)
        if sample:
            self._samples += 1
            end = max(min(limits.items, end), int(self._samples * _GOLDEN % 1 * end) + 1)
        start = end - self._fitting(end, limits)
        batch = items[start:end]
        batch.reverse()
        del items[start:end]
        return batch

    def _fitting(self, end: int, limits: Limits) -> int:
        """How many of the items before `end` make one request."""
        count, longest, together = 0, 0, 0
        cuts = self._sorted and limits.neighbours
        most = math.inf if limits.tokens is None else limits.tokens * BYTES_PER_TOKEN
        for item in reversed(self._items[max(0, end - limits.items) : end]):
            length = len(item.request)
            longest, together = max(longest, length), together + length
            if count and longest * (count + 1) > most:
                break
            if cuts and count * 4 >= limits.items and longest * (count + 1) * (1 - _WASTE) > together:
                break  # lengths this far apart come closer together once more items are ready
            count += 1
        return count


def padded(batch: Iterable[Item]) -> int:
    """Bytes of a batch's requests once all are as long as the longest."""
    lengths = [len(item.request) for item in batch]
    return max(lengths, default=0) * len(lengths)


def _length(item: Item) -> int:
    return (len(item.request) << _PLACES) - item.key  # those of one length as they came


def _text(item: Item) -> bytes:
    return item.request


def _place(item: Item) -> int:
    return item.key


_KEYS: Mapping[Order, tuple[Callable[[Item], int | bytes], bool]] = {
    "length": (_length, False),
    "prefix": (_text, True),
    "input": (_place, True),
}
