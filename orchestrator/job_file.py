"""Loading job files, and the job of a run, from Python or JSON, with the settings that `--set` changes."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from orchestrator.domain.errors import UsageError
from orchestrator.domain.urls import holds_key
from orchestrator.job import Job
from orchestrator.kinds import is_secret
from orchestrator.spec import JobSpec
from orchestrator.user_file import execute_job_file, make_importable

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")


class NoJob(UsageError):
    """A Python file declares no job; among job files, it may be a module that they import."""


def load_job(path: Path, overrides: Sequence[str] = ()) -> Job:
    """Load the job that a file declares, in Python or as JSON, and apply `policy.concurrency=8`-like overrides.

    Makes the file's folder importable. Raises `UsageError`, in one line, for everything that can be wrong with it.
    """
    path = path.absolute()
    if path.suffix == ".json":
        make_importable(path.parent)
        return overridden(JobSpec.load(path).job(str(path)), overrides)
    if path.is_file() and path.suffix != ".py":
        raise UsageError(f"{path} is not a job file: its name must end in .py or .json")
    jobs = {id(value): value for value in vars(execute_job_file(path)).values() if isinstance(value, Job)}
    if len(jobs) != 1:
        kind = UsageError if jobs else NoJob
        raise kind(f"{path} must define exactly one Job, for example `job = Job(...)`; it defines {len(jobs)}")
    return overridden(next(iter(jobs.values())), overrides)


def job_of(about: Mapping[str, object], where: str, overrides: Sequence[str] = ()) -> Job:
    """Return the job of a run from what the ledger has `about` it: its job file as it is now, or else the stored spec.

    `overrides` are added to those of the run. Raises `UsageError` if the file is gone and the ledger has no spec.
    """
    jobfile, spec, before = (about.get(name) for name in ("jobfile", "spec", "overrides"))
    path = Path(str(jobfile)) if jobfile else None
    if path is not None and (path.is_file() or spec is None):
        given = before if isinstance(before, list) else []
        try:
            return load_job(path, [*given, *overrides])
        except UsageError as error:
            if path.is_file() or "no_spec" not in about:
                raise
            raise UsageError(f"{error}, and the ledger has no spec of the job: {about['no_spec']}") from error
    if spec is None:
        raise UsageError(f"{where} was not made from a job file: run its job again where it is declared")
    if path is not None:
        make_importable(path.parent)
    return overridden(JobSpec.read(spec, where).job(where), overrides)


def overridden(job: Job, overrides: Sequence[str]) -> Job:
    """Return the job with settings changed as by `--set`."""
    for override in overrides:
        job = _override(job, override)
    return job


def _override(job: Job, override: str) -> Job:
    path, equals, text = override.partition("=")
    if holds_key(text):
        raise UsageError(
            f"--set {path}=... has a key in its URL, which the ledger would store: set it in the job file instead"
        )
    if not equals:
        raise UsageError(f"--set {override!r} must have the form policy.concurrency=8")
    try:
        names, new = path.strip().split("."), _literal(text.strip())
        if is_secret(names[-1], new):
            raise UsageError(
                f"--set {path}=... may hold a secret, which the ledger would store: set it in the job file instead"
            )
        return _replaced(job, names, new, override)
    except (TypeError, ValueError) as error:
        raise UsageError(f"--set {override!r}: {error}") from error


def _replaced(value: T, path: list[str], new: object, override: str) -> T:
    if isinstance(value, Mapping) and path[0] in value and len(path) > 1:  # the endpoints of a rollout, by name
        return {**value, path[0]: _replaced(value[path[0]], path[1:], new, override)}  # type: ignore[return-value]  # as it was
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        raise UsageError(f"--set {override!r}: there is nothing to set inside {value!r}")
    names = [spec.name for spec in dataclasses.fields(value) if spec.init]
    if path[0] not in names:
        raise UsageError(f"--set {override!r}: no setting {path[0]!r}; there is {', '.join(names)}")
    if len(path) > 1:
        new = _replaced(getattr(value, path[0]), path[1:], new, override)
    return dataclasses.replace(value, **{path[0]: new})


def _literal(text: str) -> object:
    """Return the value of a Python literal, or the text itself if it is not one."""
    try:
        literal: object = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return literal
