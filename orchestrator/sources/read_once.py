"""Data that can be read only once: a later reading must not take it for an empty source."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import GEN_CLOSED, getgeneratorstate, isgenerator
from typing import TYPE_CHECKING, TypeVar
from weakref import ref

from orchestrator.domain.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_T = TypeVar("_T")


@dataclass(slots=True, eq=False)
class EarlierReadings:
    """What earlier readings of the same data have seen."""

    had_rows: bool = False
    _iterator: Callable[[], object] = lambda: None

    def check_new(self, iterator: Iterator[_T], remedy: str) -> Iterator[_T]:
        """Return the iterator. Raises `UsageError` if an earlier reading had it, or if it is a generator at its end."""
        closed = isgenerator(iterator) and getgeneratorstate(iterator) == GEN_CLOSED
        if closed or self._iterator() is iterator:
            raise used_up(type(iterator).__name__, remedy)
        try:
            self._iterator = ref(iterator)
        except TypeError:  # `map` and others, which hold little
            self._iterator = lambda: iterator
        return iterator

    def check_left(self, rows: Iterator[_T], name: str, remedy: str) -> Iterator[_T]:
        """Yield the rows. Raises `UsageError` if there are none any more."""
        for row in rows:
            self.had_rows = True
            yield row
            yield from rows
            return
        if self.had_rows:
            raise used_up(name, remedy)


def used_up(name: str, remedy: str) -> UsageError:
    """Return the refusal of data of which an earlier reading has left nothing."""
    return UsageError(f"the {name} can be read only once, and was read before: {remedy}")
