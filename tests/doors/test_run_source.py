"""The results of another job pass the suite of every source, read from a real ledger."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from anyio.from_thread import start_blocking_portal

from orchestrator import Job, Policy
from orchestrator.domain.errors import UsageError
from orchestrator.engine.run.chained import LedgerResults
from orchestrator.ports import ReadsResults
from orchestrator.sinks import JsonlSink
from orchestrator.sources import IterableSource, RunSource
from orchestrator.store import Store
from orchestrator.testing import SourceConformance
from orchestrator.testing.sources import read
from tests.engine.scripted import QUICK, Scripted, run
from tests.ledgers import new_ledger

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from orchestrator import ports


class TestRunSource(SourceConformance):
    @pytest.fixture(autouse=True)
    def event_loop(self) -> Iterator[None]:
        with ExitStack() as self.stack, start_blocking_portal() as self.portal:
            yield
            self.stack.close()

    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        new_ledger(folder / "ledger.db")
        store = self.stack.enter_context(
            self.portal.wrap_async_context_manager(Store.open(str(folder / "ledger.db"), create=False))
        )
        rows = [{"key": number, "text": text} for number, text in enumerate(texts)]
        sink = JsonlSink(folder / "out.jsonl", keep=["text"])
        job = Job("first", IterableSource(rows, id="key"), Scripted(), sink, policy=Policy(backoff=QUICK))
        self.portal.call(run, job, store)
        runs = self.portal.call(store.finished_runs.of, "first")
        return RunSource("first").bound(LedgerResults(store, runs, call=self.portal.call))

    def test_it_says_whose_results_it_reads(self, tmp_path: Path) -> None:
        source = self.source(tmp_path, self.texts)
        assert isinstance(source, ReadsResults)
        assert (source.job, source.describe()) == ("first", "results of run 1 of first")

    def test_more_rows_than_a_page_keep_their_order(self, tmp_path: Path) -> None:
        texts = [f"text {number}" for number in range(1_100)]
        rows = read(self.source(tmp_path, texts))
        assert [(row.id, row.given_id, row.columns["output"]) for row in rows] == [
            (str(number), number, text.upper()) for number, text in enumerate(texts)
        ]


def test_without_a_run_there_is_nothing_to_read() -> None:
    with pytest.raises(UsageError, match=r"^results of first are in a ledger: only a run or `plan`"):
        read(RunSource("first"))
