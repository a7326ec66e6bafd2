"""What an estimate is made from: requests that earlier runs got answered, awake windows, and what is left of a run."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from orchestrator import exact_json
from orchestrator.domain.estimate import Billing
from orchestrator.domain.measured_pace import Sample, Workload
from orchestrator.store.chunks import POSITION_BITS

if TYPE_CHECKING:
    from orchestrator.store.database import Database

_RUNS = 20  # the latest runs of a job that are looked at
_SAMPLES = 20_000  # rows of a run that are looked at, of the chunks that were made last
_WINDOWS = 10  # the latest windows of an endpoint that count
_LATEST_RUNS = """
SELECT r.id, r.spec ->> '$.endpoint', r.spec -> '$.identity',
       (SELECT min(g.at) FROM reading g WHERE g.run_id = r.id), (SELECT max(g.at) FROM reading g WHERE g.run_id = r.id)
FROM run r WHERE r.job_id = :job
AND EXISTS (SELECT 1 FROM reading g WHERE g.run_id = r.id AND g.completed + g.discarded > 0)
ORDER BY r.id DESC LIMIT :most
"""
# A reading is written when asking ends, so what a run asked was settled between its first and its last one.
_ANSWERED = f"""
SELECT length(i.request), s.seconds, s.finished_at
FROM (SELECT lo, hi, sum(hi - lo) OVER (ORDER BY id DESC) AS rows FROM chunk
      WHERE run_id = :run AND completed + discarded > 0) c
CROSS JOIN member m ON m.id >= (:run << {POSITION_BITS}) | c.lo AND m.id < (:run << {POSITION_BITS}) | c.hi
CROSS JOIN result s ON s.item_key = m.item_key CROSS JOIN item i ON i.key = m.item_key
WHERE c.rows - (c.hi - c.lo) < :most AND s.finished_at BETWEEN :since AND :until AND s.attempts > 0 AND s.seconds > 0
"""
_USED = """
SELECT w.endpoint, coalesce(sum(h.work), 0.0) FROM hold h JOIN awake_window w ON w.id = h.window_id
WHERE h.run_id = :run GROUP BY w.endpoint
"""
_PRICE = """
SELECT price_per_hour FROM awake_window WHERE endpoint = :endpoint AND price_per_hour IS NOT NULL
ORDER BY id DESC LIMIT 1
"""
# Windows that one run had for itself, from the resume until the endpoint was seen asleep
_BESIDE = """
SELECT w.closed_at - w.resumed_at - h.work FROM awake_window w JOIN hold h ON h.window_id = w.id
WHERE w.endpoint = :endpoint AND w.resumed_at IS NOT NULL AND w.closed_at IS NOT NULL AND h.run_id IS NOT NULL
AND h.work IS NOT NULL AND (SELECT count(*) FROM hold o WHERE o.window_id = w.id) = 1
ORDER BY w.id DESC LIMIT :most
"""
_TOKENS = "SELECT sum(tokens_in), sum(tokens_out), sum(completed) FROM chunk WHERE run_id = :run AND tokens_in > 0"
_LEFT = f"""
SELECT count(*), coalesce(sum(length(i.request)), 0)
FROM member m CROSS JOIN item i ON i.key = m.item_key LEFT JOIN result s ON s.item_key = m.item_key
WHERE m.id >= :run << {POSITION_BITS} AND m.id < (:run + 1) << {POSITION_BITS}
AND s.item_key IS NULL AND m.same_as IS NULL
"""


class Alike(NamedTuple):
    """An earlier run that asked the same endpoints in the same way, and when it was first and last asking."""

    run: int
    since: float
    until: float


class Estimates:
    """Queries for estimates."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def alike(self, job_id: int, endpoint: str, identity: object) -> list[Alike]:
        """Runs of the job that settled anything with these endpoints and this identity, the latest first."""
        async with self._database.read() as connection:
            rows = await connection.execute(_LATEST_RUNS, {"job": job_id, "most": _RUNS})
            wanted = exact_json.loads(exact_json.dumps(identity))
            return [
                Alike(run, since, until)
                for run, name, stored, since, until in rows
                if name == endpoint and stored is not None and exact_json.loads(stored) == wanted
            ]

    async def samples(self, run: Alike) -> list[Sample]:
        """The requests that this run got answered or discarded, at most about 20,000 of them."""
        values = {"run": run.run, "most": _SAMPLES, "since": run.since, "until": run.until}
        async with self._database.read() as connection:
            return [Sample(*row) for row in await connection.execute(_ANSWERED, values)]

    async def billing(self, run_id: int) -> list[Billing]:
        """The endpoints that billed for this run, with what waking and pausing has taken of late."""
        async with self._database.read() as connection:
            used = (await connection.execute(_USED, {"run": run_id})).all()
            most = max((work for _, work in used), default=0.0)
            found = []
            for endpoint, work in used:
                values = {"endpoint": endpoint, "most": _WINDOWS}
                beside = [max(0.0, seconds) for (seconds,) in await connection.execute(_BESIDE, values)]
                price = (await connection.execute(_PRICE, values)).scalar_one_or_none()
                share = work / most if most else 1.0
                found.append(Billing(endpoint, median(beside) if beside else 0.0, share, price))
            return found

    async def tokens(self, run_id: int) -> tuple[float, float] | None:
        """Return the mean tokens of an item's requests and answers in this run; None if the server reported none."""
        async with self._database.read() as connection:
            tokens_in, tokens_out, items = (await connection.execute(_TOKENS, {"run": run_id})).one()
        return None if tokens_in is None or not items else (tokens_in / items, (tokens_out or 0) / items)

    async def left(self, run_id: int) -> Workload:
        """What is left to ask of a run. Reads all its rows."""
        async with self._database.read() as connection:
            return Workload(*(await connection.execute(_LEFT, {"run": run_id})).one())
