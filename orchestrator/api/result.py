"""Result: how a run ended, and its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.api.rows import Rows
from orchestrator.domain.item import ItemState
from orchestrator.domain.run import Counts
from orchestrator.report.cell import result_html, spent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from orchestrator.app import App
    from orchestrator.domain.run import Cause, Run
    from orchestrator.report.markup import Markup


class Result(Rows):
    """The outcome of a run. Iterating over it yields the completed rows.

    `counts`: the items by state. `cost`: dollars for the time awake; None if a price is not known. `awake`: seconds
    awake for the run. `causes`: discarded items by cause, the most frequent first. `manifest`: what was delivered, with
    its counts and hashes. `discarded`: the discarded rows.
    """

    def __init__(
        self,
        ledger: Path,
        run: Run,
        *,
        counts: Counts,
        cost: float | None,
        awake: float,
        causes: Sequence[Cause],
        manifest: Mapping[str, object],
    ) -> None:
        super().__init__(ledger, run, ItemState.COMPLETED, counts.completed)
        self.run_id = run.id
        self.job = run.job
        self.counts = counts
        self.cost = cost
        self.awake = awake
        self.causes = causes
        self.manifest = manifest
        self.discarded = Rows(ledger, run, ItemState.DISCARDED, counts.discarded)

    def __repr__(self) -> str:
        """Return one line with the numbers that matter."""
        return f"<Result of {self._title}: {self.counts}; {spent(self.awake, self.cost)}>"

    def _repr_html_(self) -> Markup:
        """Return these numbers, the causes of discards and the first rows, as a notebook shows them."""
        rows = super()._repr_html_()
        return result_html(self._title, self.counts, self.awake, self.cost, self.causes, rows)

    @property
    def _title(self) -> str:
        return f"run {self.run_id} of {self.job}"


async def result_of(app: App, name: str, manifest: Mapping[str, object] | None = None) -> Result:
    """Return the result of a run as the ledger has it now. `manifest`: of its delivery, if it has just been made."""
    run = await app.find(name)
    (about,) = (await app.report(str(run.id))).runs
    ran = about.ran
    return Result(
        app.store.database.path,
        run,
        counts=Counts(ran.total, ran.completed, ran.discarded),
        cost=0.0 if about.cost is None else about.cost.dollars,
        awake=about.spent.seconds,
        causes=[failure.cause for failure in about.failures],
        manifest=await app.manifest(str(run.id)) if manifest is None else manifest,
    )
