from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.domain.attempt import Completed, Discarded, Outcome
from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.domain.run import Spec
from orchestrator.store.answers import Reparsed
from orchestrator.store.items import Settlement
from orchestrator.store.row_classes import NewItem

if TYPE_CHECKING:
    from orchestrator.store import Store

PARSE = RequestFailed(FailureKind.PARSE, "no number")
REJECTED = RequestFailed(FailureKind.REJECTED, "bad input", status=400)


async def test_every_answer_is_parsed_again_including_refused_ones(store: Store) -> None:
    me = await store.runs.register(host="h", pid=1, pid_started=0.0, lease=60)
    run = await store.runs.take(Spec("job", "f", "s"), me)
    outcomes: list[Outcome] = [
        Completed("1", '"one"'),
        Completed('"as it is"'),
        Discarded(PARSE, '"two"'),
        Discarded(REJECTED),
    ]
    rows = [NewItem(f"i{number}", "h", "{}", None) for number in range(len(outcomes))]
    plan = await store.snapshots.ingest(run.id, run.job_id, 0, [rows])
    await store.runs.ingested(run.id, total=len(rows), plan=plan, input_sha256="s")
    (part,) = await store.items.lease(run.id, me, 1)
    done = [Settlement(item, outcome, 0.1) for item, outcome in zip(part.items, outcomes, strict=True)]
    await store.items.settle(done, [part.lease])
    answers = [answer async for page in store.answers.pages(run.job_id) for answer in page]
    assert [answer for _, answer in answers] == ['"one"', '"as it is"', '"two"']
    one, _, two = [key for key, _ in answers]
    await store.answers.reparse([Reparsed(one, None, '"one"', "no longer"), Reparsed(two, "2", '"two"', None)])
    views = [view async for page in store.views.pages(run.id) for view in page]
    assert [(view.state, view.output, view.kind, view.message) for view in views] == [
        ("discarded", None, "parse", "no longer"),
        ("completed", '"as it is"', None, None),
        ("completed", "2", None, None),
        ("discarded", None, "rejected", "bad input"),
    ]
