from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from orchestrator.domain.errors import UsageError
from orchestrator.domain.placeholders import filled, placeholders_in
from orchestrator.sources import IterableSource
from tests.engine.scripted import Scripted, job_of, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Self

    from orchestrator.store import Store

    Record = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class TableSink:
    """Keeps what is delivered in memory, by the name of a table."""

    table: str
    tables: dict[str, list[Record]] = field(default_factory=dict)
    keep: tuple[str, ...] = ()

    @property
    def placeholders(self) -> frozenset[str]:
        return placeholders_in(self.table)

    def describe(self) -> str:
        return f"table {self.table}"

    def for_run(self, names: Mapping[str, str]) -> Self:
        return replace(self, table=filled(self.table, names))

    @contextmanager
    def open(self) -> Iterator[TableDelivery]:
        yield TableDelivery(self)


class TableDelivery:
    def __init__(self, sink: TableSink) -> None:
        self._sink = sink
        self._records: list[Record] = []

    def complete(self, records: Sequence[Record]) -> None:
        self._records += records

    def discard(self, records: Sequence[Record]) -> None:
        pass

    def seal(self, manifest: Record) -> Record:
        self._sink.tables[self._sink.table] = self._records
        return manifest


async def test_a_sink_without_files_is_delivered_to(store: Store, tmp_path: Path) -> None:
    sink = TableSink("reviews_{run}")
    result = await run(replace(job_of(["a", "b"], Scripted(), tmp_path), sink=sink), store)
    assert [record["output"] for record in sink.tables[f"reviews_{result.run.id}"]] == ["A", "B"]
    assert (await store.runs.find(str(result.run.id))).spec.about["output"] == "table reviews_{run}"


def test_an_incremental_job_needs_the_run_in_the_name_of_such_a_target(tmp_path: Path) -> None:
    job = replace(job_of(["a"], Scripted(), tmp_path), sink=TableSink("reviews_{run}"), incremental=True)
    with pytest.raises(ValueError, match=r"put \{run\} into the name of table reviews"):
        replace(job, sink=TableSink("reviews"))


async def test_an_input_that_has_become_empty_does_not_empty_such_a_target(store: Store, tmp_path: Path) -> None:
    job = replace(job_of(["a"], Scripted(), tmp_path), sink=TableSink("reviews"))
    await run(job, store)
    with pytest.raises(UsageError, match="has no rows, but had 1 in run"):
        await run(replace(job, source=IterableSource([], id="id")), store)
