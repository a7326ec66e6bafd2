"""Run request: a job with its options, from a job file or from a run in the ledger."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.domain.errors import UsageError
from orchestrator.job_file import job_of, load_job, overridden
from orchestrator.spec import JobSpec, stored_spec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.domain.queue import Claim
    from orchestrator.domain.run import Run
    from orchestrator.job import Job


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What to run. `about` is kept in the ledger with the run and contains no secret.

    `claim`: it is a queued run, claimed for this process. `retry`: the run whose discarded items are asked again;
    with `like`, only those that failed for the same cause as its item with this id.
    `reuse`: jobs whose answers are taken over. `canary`: so many items are asked first, and the run stops if the rest
    would cost more than it may; with `only_canary`, it stops in any case.
    """

    job: Job
    limit: int | None = None
    about: Mapping[str, object] | None = None
    claim: Claim | None = None
    retry: int | None = None
    like: str | None = None
    reuse: Sequence[str] = ()
    canary: int | None = None
    only_canary: bool = False

    @property
    def jobfile(self) -> object:
        """The path of the job file; None if there is none."""
        return (self.about or {}).get("jobfile")

    def kept(self) -> dict[str, object]:
        """Return what the ledger keeps: `about` and the job's spec, or the reason why there is none."""
        about = dict(self.about or {})
        return about if about.keys() & {"spec", "no_spec"} else about | stored_spec(self.job)


def request_from(
    jobfile: Path,
    *,
    limit: int | None = None,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    reuse: Sequence[str] = (),
) -> RunRequest:
    """Return the request that the command line makes with a job file.

    Loads the file, which runs its code; raises `UsageError` if that fails. Relative paths in the job count from the
    current folder, now and when the run is executed.
    """
    settings = _overrides(overrides, overwrite=overwrite)
    job = load_job(jobfile, settings)
    about: dict[str, object] = {"jobfile": str(jobfile.absolute()), "folder": str(Path.cwd()), "overrides": settings}
    about |= {"limit": limit} | ({"reuse": list(reuse)} if reuse else {}) | stored_spec(job)
    return RunRequest(job, limit, about, reuse=reuse)


def request_for(
    job: Job, *, limit: int | None = None, overwrite: bool = False, reuse: Sequence[str] = ()
) -> RunRequest:
    """Return the request to run a job that is not declared in a job file. Relative paths count from the current folder.

    The ledger keeps the job's spec, if it has one, so that other processes can execute the run.
    """
    job = overridden(job, _overrides((), overwrite=overwrite))
    about: dict[str, object] = {"folder": str(Path.cwd()), "limit": limit}
    about |= ({"reuse": list(reuse)} if reuse else {}) | stored_spec(job)
    return RunRequest(job, limit, about, reuse=reuse)


def request_of_spec(form: object, limit: int | None = None) -> RunRequest:
    """Return the request to run a job that arrived as JSON. Raises `UsageError` if it refers to Python files.

    They would be executed in this process.
    """
    if _refers_to_python(form):
        raise UsageError("a job as JSON may not refer to Python files here: use a job file in a folder of [serve] jobs")
    return request_for(JobSpec.read(form, "spec").job("spec"), limit=limit)


def _refers_to_python(form: object) -> bool:
    if isinstance(form, dict):
        return "python" in form or any(map(_refers_to_python, form.values()))
    return isinstance(form, list) and any(map(_refers_to_python, form))


def request_of(run: Run, claim: Claim | None = None, *, overwrite: bool = False) -> RunRequest:
    """Return the request to execute a run of the ledger, or to execute it again; its folder becomes the current one.

    Loads its job file, or the spec in the ledger if the file is gone. `overwrite`: this time, replace files that no
    delivery of the job has written. Raises `UsageError` if the folder is gone, or neither can be used.
    """
    about = run.spec.about
    limit, folder = about.get("limit"), about.get("folder")
    if folder is not None:
        try:
            os.chdir(str(folder))
        except OSError as error:
            raise UsageError(
                f"the folder {folder} in which run {run.id} was begun is gone: {error.strerror}"
            ) from error
    job = job_of(about, f"run {run.id}", _overrides((), overwrite=overwrite))
    if folder is None and about.get("output") != job.output:
        raise UsageError(
            f"run {run.id} does not say in which folder it was begun, and from here its output would be "
            f"{job.output}, not {about.get('output')}: go to that folder first"
        )
    kept = {name: about[name] for name in ("jobfile", "overrides", "folder", "reuse") if name in about}
    kept |= stored_spec(job)
    reuse = about.get("reuse")
    jobs = reuse if isinstance(reuse, list) else ()
    return RunRequest(job, limit if isinstance(limit, int) else None, kept, claim, reuse=jobs)


def _overrides(overrides: Sequence[str], *, overwrite: bool) -> list[str]:
    """Return the settings that change the job, as they are kept with the run."""
    return [*overrides, *(["sink.overwrite=True"] if overwrite else [])]
