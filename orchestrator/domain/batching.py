"""Items -> batches: neighbours in length together, so that padding is not paid for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from orchestrator.domain.item import Item


def batches(window: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Cut a window of items into batches of at most `size`, longest first.

    Length is that of the request, a fair stand-in for tokens. Longest first: what does not fit in memory is found out
    at once, and the last batches of a run are the short ones.
    """
    by_length = sorted(window, key=lambda item: len(item.request), reverse=True)
    for start in range(0, len(by_length), size):
        yield by_length[start : start + size]
