"""The results of another job, read from the ledger."""

from __future__ import annotations

import hashlib
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

from orchestrator.domain.errors import UsageError
from orchestrator.domain.item import ItemState, Row
from orchestrator.ports import Results  # noqa: TC001 - `kinds` evaluates the annotations

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.domain.item import ItemResult


@dataclass(frozen=True, slots=True)
class RunSource:
    """The completed items of another job's latest finished run in the same ledger, in input order.

    A row has the item's `id`, the columns that the job keeps, and its `output`; with `discarded`, it is a discarded
    item, with its `error` and `attempts`. The id is that of the item, so a row is the same item as long as what is
    asked about it is the same. A run with a limit counts only if no run without one has finished. For an incremental
    job, the rows are those of all its runs, each in its latest version. `output`: what the column with the output is
    called, since a sink cannot keep one that is called "output".
    """

    job: str
    discarded: bool = False
    output: str = "output"
    _results: Results | None = field(default=None, init=False, repr=False, compare=False)

    def bound(self, results: Results) -> Self:
        """Return the same source, which reads these results."""
        one = replace(self)
        object.__setattr__(one, "_results", results)
        return one

    @contextmanager
    def rows(self) -> Iterator[Iterator[Row]]:
        """Begin with the first item and yield the rows in order."""
        wanted = ItemState.DISCARDED if self.discarded else ItemState.COMPLETED
        with closing(self._bound().pages()) as pages:
            yield (self._row(item) for page in pages for item in page if item.state is wanted)

    def _row(self, item: ItemResult) -> Row:
        columns: dict[str, object] = {"id": item.id, **item.kept}
        if self.discarded:
            columns |= {"error": item.error, "attempts": item.attempts}
        elif self.output in columns:
            raise UsageError(f"{self.describe()} have a column {self.output!r} already: choose another for `output`")
        else:
            columns[self.output] = item.output
        return Row(columns, item.id, given_id=item.kept.get("id"))

    def sha256(self) -> str:
        """Return the hex SHA-256 of what identifies the run and how its items have ended."""
        what = f"{self._bound().version()} {self.discarded} {self.output}"
        return hashlib.sha256(what.encode()).hexdigest()

    def describe(self) -> str:
        """Return the run that is read, once that is known."""
        what = "discarded items" if self.discarded else "results"
        return f"{what} of {self.job if self._results is None else self._results.describe()}"

    def _bound(self) -> Results:
        if self._results is None:
            raise UsageError(f"{self.describe()} are in a ledger: only a run or `plan` of a job can read them")
        return self._results
