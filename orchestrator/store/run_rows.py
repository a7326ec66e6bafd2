"""Rows of `run` as values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator import exact_json
from orchestrator.domain.run import Plan, Run, RunState, Spec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.store.connection import AsyncConnection, LedgerRow

RUN_COLUMNS = """
r.id, r.job_id, j.name, r.state, r.fingerprint, r.spec, r.input_sha256, r.total, r.plan, r.holder, r.rate, r.created_at,
r.started_at, r.finished_at, r.error, r.held, r.due_at, r.tries, r.why, r.delivered_at, r.deadline
"""
RUN = f"SELECT {RUN_COLUMNS} FROM run r JOIN job j ON j.id = r.job_id"
LATEST = f"{RUN} WHERE j.name = :job AND r.state <> 'superseded' ORDER BY r.id DESC LIMIT 1"
LATEST_BEGUN = (
    f"{RUN} WHERE j.name = :job AND r.state <> 'superseded' AND r.fingerprint <> '' ORDER BY r.id DESC LIMIT 1"
)
LATEST_ALIKE = (
    f"{RUN} WHERE j.name = :job AND r.state <> 'superseded' AND r.fingerprint <> '' AND r.spec ->> 'limit' IS :limit "
    "ORDER BY r.id DESC LIMIT 1"
)
EXECUTED = f"{RUN} WHERE r.holder IS NOT NULL AND j.name = :job AND r.delivered_at IS NULL LIMIT 1"
BY_ID = f"{RUN} WHERE r.id = :run"
NEWEST = f"{RUN} ORDER BY r.id DESC LIMIT 1"
# The state is the word that people read; see `state_word`.
PAGE = f"""{RUN}
WHERE r.id < :before AND (:job IS NULL OR r.job_id = (SELECT id FROM job WHERE name = :job)) AND (:state IS NULL OR
    iif(r.held AND r.state NOT IN ('finished', 'cancelled', 'superseded'), 'held',
        iif(r.holder IS NOT NULL AND r.state <> 'cancelled', 'running', r.state)) = :state)
ORDER BY r.id DESC LIMIT :limit
"""
# Few, however many runs there are.
HELD_BY_A_PROCESS = "SELECT id FROM run INDEXED BY ix_run_holder WHERE holder IS NOT NULL"
CURRENT = f"""{RUN} WHERE r.id IN (
    {HELD_BY_A_PROCESS} UNION ALL SELECT value FROM json_each(:also) UNION ALL SELECT id FROM run WHERE id > :newest)
ORDER BY r.id LIMIT :limit"""

# Whether the hooks of run `r` are still to be called.
IS_OWED = """
(r.holder IS NULL AND r.state IN ('finished', 'failed') AND r.due_at IS NULL
 AND json_extract(r.notification, '$.owed') = 1 AND (r.state = 'failed' OR r.delivered_at IS NOT NULL))
"""


async def run_by_id(connection: AsyncConnection, run_id: int) -> Run:
    """The run with this number, which must exist."""
    return as_run((await connection.execute(BY_ID, {"run": run_id})).one())


async def find_run(connection: AsyncConnection, statement: str, **values: object) -> Run | None:
    """The run that this statement selects, if there is one."""
    row = (await connection.execute(statement, values)).one_or_none()
    return None if row is None else as_run(row)


def as_run(row: LedgerRow) -> Run:
    """The run in this row."""
    plan: Mapping[str, int] = exact_json.loads(row.plan) if row.plan else {}
    return Run(
        id=row.id,
        job_id=row.job_id,
        job=row.name,
        state=RunState(row.state),
        spec=Spec(row.name, row.fingerprint, row.input_sha256, exact_json.loads(row.spec)),
        plan=Plan(**plan),
        total=row.total,
        holder=row.holder,
        rate=row.rate,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        error=row.error,
        held=bool(row.held),
        due_at=row.due_at,
        tries=row.tries,
        why=row.why,
        delivered_at=row.delivered_at,
        deadline=row.deadline,
    )
