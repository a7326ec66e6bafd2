"""Rows of a run, read from the ledger each time they are asked for: as dicts, or as a table of any library."""

from __future__ import annotations

from contextlib import contextmanager
from importlib import import_module
from itertools import chain, islice
from tempfile import TemporaryFile, gettempdir
from typing import IO, TYPE_CHECKING, Any, overload
from weakref import finalize

from orchestrator.domain.errors import OrchestratorError, UsageError
from orchestrator.domain.item import ItemState
from orchestrator.engine.results import results_in
from orchestrator.report.cell import rows_html
from orchestrator.report.markup import Markup, tag
from orchestrator.sinks.output_file import abandon
from orchestrator.store.settled_rows import SettledRows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

    import datasets
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from orchestrator.domain.run import Run
    from orchestrator.sinks.output_schema import DeclaredType

_FIRST = 5  # rows that a notebook shows


class Rows:
    """The completed or the discarded rows of a run, in input order.

    They stay in the ledger: each iteration reads them again, page by page, so any number of them takes the same memory,
    and they can be read after the application is closed. `rows[7]` and `rows[-10:]` read only these. A row is a dict:
    `id`, the kept columns, and `output`, or `error` and `attempts` if it was discarded. If the ledger is gone, reading
    raises `LedgerError`; if the run has been deleted from it, `UsageError`. `len` is the number of rows when this was
    made.
    """

    def __init__(self, ledger: Path, run: Run, state: ItemState, length: int) -> None:
        self._ledger = ledger
        self._run = run
        self._state = state
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for page in self._pages():
            yield from page

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        """Return one row, or those of a slice as a list. What lies before it is not read."""
        if isinstance(index, slice):
            places = range(self._length)[index]
            if not places:
                return []
            lowest, highest = sorted((places[0], places[-1]))
            found = list(islice(self._after(lowest), 0, highest - lowest + 1, abs(places.step)))
            return found if places.step > 0 else found[::-1]
        try:
            place = range(self._length)[index]
        except TypeError:
            raise TypeError(
                f"rows are found by number or slice, not by {index!r}: result[0] is a dict, with id, kept columns and "
                "output; result.to_pandas() has columns"
            ) from None
        for row in self._after(place):
            return row
        raise IndexError(f"row {index} is no longer settled: read the result anew")

    def __repr__(self) -> str:
        """Return one line."""
        return f"<{self._length:,} {self._state} rows of run {self._run.id} of {self._run.job}>"

    def _repr_html_(self) -> Markup:
        """Return the first rows as a notebook shows them."""
        try:
            return rows_html(list(islice(self, _FIRST)), self._length)
        except OrchestratorError as error:  # the ledger is gone, for example
            return tag("p", str(error))

    def _after(self, count: int) -> Iterator[dict[str, Any]]:
        """Yield the rows after the first `count`."""
        with SettledRows.open(self._ledger, self._run.id, self._run.created_at) as rows:
            begin, before = rows.near(self._state, count)
        return islice(chain.from_iterable(self._pages(begin)), count - before, None)

    def _pages(self, begin: int = 0) -> Iterator[list[dict[str, Any]]]:
        with SettledRows.open(self._ledger, self._run.id, self._run.created_at) as rows:
            for page in rows.pages(self._state, begin):
                yield [one.record() for one in results_in(page) if one.state is self._state]

    # -- as a table ------------------------------------------------------------------------------------------------

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Return the rows as an Arrow stream, which DuckDB, polars, pandas and others read by themselves."""
        return self.to_batches().__arrow_c_stream__(requested_schema)

    def to_batches(self, schema: DeclaredType | None = None) -> pa.RecordBatchReader:
        """Return the rows as a stream of Arrow batches with one schema, in constant memory.

        A column has the type that preserves every one of its values; if there is none, it is JSON text. The rows are
        read once, and wait in a temporary file until all types are known. `schema`: the type of the outputs, as for
        `ParquetSink`; reading raises `UsageError` for an output that does not fit it.
        """
        import pyarrow as pa

        from orchestrator.sinks.output_schema import declared, schema_form
        from orchestrator.sinks.typed_records import TypedRecords

        form = schema_form(schema)
        with _waiting() as waiting:
            records = TypedRecords(waiting, self._columns(), None if form is None else declared(form))
            for page in self._pages():
                records.add(page)
        typed = records.reader()
        batches = (batch for batch in typed)
        finalize(batches, waiting.close)  # the consumer may drop the stream before its end
        return pa.RecordBatchReader.from_batches(typed.schema, batches)

    def to_arrow(self, schema: DeclaredType | None = None) -> pa.Table:
        """Return the rows as an Arrow table; `schema` as for `to_batches`."""
        return self.to_batches(schema).read_all()

    def to_pandas(self) -> pd.DataFrame:
        """Return the rows as a pandas DataFrame."""
        _needs("pandas")
        return self.to_arrow().to_pandas()

    def to_polars(self) -> pl.DataFrame:
        """Return the rows as a polars DataFrame."""
        frame: pl.DataFrame = _needs("polars").DataFrame(self)
        return frame

    def to_dataset(self) -> datasets.Dataset:
        """Return the rows as a `datasets.Dataset` in memory."""
        return _needs("datasets").Dataset(self.to_arrow())

    def _columns(self) -> list[str]:
        keep = self._run.spec.about.get("keep")
        kept = [str(name) for name in keep if name != "id"] if isinstance(keep, list) else []
        ours = ["output"] if self._state is ItemState.COMPLETED else ["error", "attempts"]
        return ["id", *kept, *ours]


@contextmanager
def _waiting() -> Iterator[IO[bytes]]:
    """Open a nameless file for rows. It stays open, unless the block fails."""
    file = TemporaryFile()  # noqa: SIM115 - open as long as the stream that reads it
    try:
        yield file
        file.flush()
    except OSError as failure:
        abandon(file)
        raise UsageError(
            f"the rows cannot wait until their types are known ({failure.strerror or failure} in {gettempdir()}): "
            "free some space there, or set TMPDIR to another folder"
        ) from failure
    except BaseException:
        abandon(file)
        raise


def _needs(package: str) -> ModuleType:
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise UsageError(f"to_{_METHODS[package]} needs the package {package}: pip install {package}") from error


_METHODS = {"pandas": "pandas", "polars": "polars", "datasets": "dataset"}
