"""The files of a job: refuse outputs that would overwrite other files, before anything is asked."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.domain.errors import UsageError
from orchestrator.domain.placeholders import names_of
from orchestrator.ports import ChecksTarget, NamesTargets, ReadsFiles, ReadsObjects

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from orchestrator.domain.location import Location, Target
    from orchestrator.job import Job

_NO_DATA = frozenset({".py", ".toml"})  # modules and settings of the job, which even `overwrite` does not replace
SOME_RUNS = (1, 23, 456)  # run numbers that represent all values of `{run}`


def check_files(
    job: Job, ledger: Path, jobfile: object, names: Mapping[str, str] | None = None, *, new: bool = False
) -> None:
    """Raise `UsageError` if a run of the job would overwrite what it reads, what it needs, or files of others.

    `names`: of the run; without them, check as far as possible before there is a run. `new`: it has never delivered.
    """
    numbered = job.sink is not None and "run" in job.sink.placeholders
    guessed = names is None and numbered
    guesses = [names_of(run, job.name, time.time()) for run in (SOME_RUNS if guessed else SOME_RUNS[:1])]
    named = guesses if names is None else [names]
    sinks = [] if job.sink is None else [job.sink.for_run(one) for one in named]
    targets = [target for sink in sinks if isinstance(sink, NamesTargets) for target in sink.writes(SOME_RUNS)]
    paths, locations = divided_by_place(targets)
    check_needed(paths, ledger, jobfile)
    if isinstance(job.source, ReadsFiles):
        if job.source.reads([ledger]):
            raise UsageError(
                f"the source {job.source.describe()} reads the ledger {ledger}: narrow its path, or read another job's "
                "results with RunSource"
            )
        check_unread(job.source.describe(), job.source.reads(paths))
    if isinstance(job.source, ReadsObjects):
        check_unread(job.source.describe(), job.source.reads_objects(locations))
    for sink in sinks:
        if isinstance(sink, ChecksTarget):
            sink.check(None if guessed else job.name, replaces=not (new and numbered))


def divided_by_place(targets: Iterable[Target]) -> tuple[list[Path], list[Location]]:
    """Return the targets on this machine, and those elsewhere."""
    paths: list[Path] = []
    locations: list[Location] = []
    for target in targets:
        if isinstance(target, Path):
            paths.append(target)
        else:
            locations.append(target)
    return paths, locations


def check_needed(paths: Sequence[Path], ledger: Path, jobfile: object) -> None:
    """Raise `UsageError` if one of these output paths leads to the ledger or to the job file."""
    beside = [ledger.with_name(f"{ledger.name}{suffix}") for suffix in ("-wal", "-shm", "-journal")]
    needed = [("the ledger", path) for path in (ledger, *beside)]
    needed += [("the job file", Path(jobfile))] if isinstance(jobfile, str) else []
    for name, one in needed:
        for path in paths:
            if os.path.realpath(path) == os.path.realpath(one) or _linked(path, one):
                raise UsageError(f"the output {path} would overwrite {name}: choose another path for the output")
    for path in paths:
        if path.suffix in _NO_DATA:
            raise UsageError(
                f"the output {path} is named like a program or a settings file: call it {path.stem}.jsonl instead"
            )


def check_unread(source: str, read: Sequence[Target]) -> None:
    """Raise `UsageError` if the source reads some of the files that would be written."""
    if read:
        raise UsageError(
            f"the output would overwrite {read[0]}, which the source {source} reads: choose another path for the output"
        )


def _linked(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)
