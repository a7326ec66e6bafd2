"""Submit: put a run into the queue."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
from anyio import to_thread

from orchestrator import exact_json
from orchestrator.domain.errors import UsageError
from orchestrator.domain.moment import deadline_at
from orchestrator.domain.queue import Submission
from orchestrator.engine.awake.reaper import reap
from orchestrator.engine.run.files import check_files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.domain.run import Run
    from orchestrator.engine.run.run_request import RunRequest
    from orchestrator.store import Store


@dataclass(frozen=True, slots=True)
class Queueing:
    """When a run is to be executed. Moments are seconds since 1970 UTC.

    `due_at`: not before. `deadline`: when its answers are needed; by default the policy's. `priority`: higher is
    sooner. `after`: runs or jobs to wait for, each with whether any end will do or only success. `key`: submitting
    again with the same key gives the same run. `key_covers`: what else must be equal then.
    """

    due_at: float | None = None
    deadline: float | None = None
    priority: int = 0
    after: Sequence[tuple[str, bool]] = ()
    key: str | None = None
    key_covers: Sequence[object] = ()


@dataclass(frozen=True, slots=True)
class Submitted:
    """A run in the queue. `new`: this submission created it. `served`: a daemon is running that will take it."""

    run: Run
    new: bool
    served: bool


async def submit(request: RunRequest, queueing: Queueing, store: Store) -> Submitted:
    """Queue a run.

    Raises `UsageError` if it could not deliver, names a run that does not exist, or has neither job file nor JSON form.
    """
    job, about = request.job, await to_thread.run_sync(_about, request)
    await to_thread.run_sync(check_files, job, store.database.path, request.jobfile)
    key_hash = await to_thread.run_sync(_key_hash, request.jobfile, about, queueing.key_covers)
    await reap(store)
    await store.reuse.named(request.reuse, job.name)  # so that a misspelt name is refused now
    wanted = [*queueing.after, *job.waits_for]
    after = [((await store.runs.find(name)).id, any_end) for name, any_end in wanted]
    now, deadline = time.time(), queueing.deadline
    if deadline is None and job.policy.deadline is not None:
        deadline = deadline_at(job.policy.deadline, now)
    submission = Submission(
        job.name,
        about,
        sorted(job.endpoint_names),
        due_at=now if queueing.due_at is None else queueing.due_at,
        priority=queueing.priority,
        deadline=deadline,
        after=after,
        key=queueing.key,
        key_hash=key_hash,
    )
    run_id, new = await store.queue.submit(submission)
    return Submitted(await store.runs.find(str(run_id)), new, await store.queue.served())


def _about(request: RunRequest) -> dict[str, object]:
    """Return what a process needs to execute the run."""
    about = request.kept()
    if request.jobfile is None and "no_spec" in about:
        raise UsageError(str(about["no_spec"]))
    return about if "folder" in about else {"folder": str(Path.cwd()), "limit": request.limit, **about}


def _key_hash(jobfile: object, about: Mapping[str, object], covers: Sequence[object]) -> str:
    """Return the hash of everything that was submitted, which must be equal for the same key."""
    submitted = {name: value for name, value in about.items() if name not in {"spec", "no_spec", "request"}}
    job = exact_json.dumps(about["spec"]) if jobfile is None else Path(str(jobfile)).read_bytes()
    return hashlib.sha256(orjson.dumps([submitted, covers]) + job).hexdigest()
