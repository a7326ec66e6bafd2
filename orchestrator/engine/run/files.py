"""The files of a job: what its delivery may not write, which is seen before anything is asked."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.domain.errors import UsageError
from orchestrator.domain.placeholders import names_of, placeholders_in
from orchestrator.ports import ReadsFiles, WritesFiles

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.job import Job

_NO_DATA = frozenset({".py", ".toml"})  # the job's modules and settings, whatever `overwrite` says
SOME_RUNS = (1, 23, 456)  # numbers that stand for all that `{run}` may become


def check_files(
    job: Job, ledger: Path, jobfile: object, names: Mapping[str, str] | None = None, *, new: bool = False
) -> None:
    """`UsageError` where a run of the job would write over what it reads, what it needs, or what is none of its own.

    `names`: of the run; without them, as far as can be said before there is one. `new`: it has never delivered.
    """
    numbered = "run" in placeholders_in(str(job.sink.path))
    guessed = names is None and numbered
    guesses = [names_of(run, job.name, time.time()) for run in (SOME_RUNS if guessed else SOME_RUNS[:1])]
    sinks = [job.sink.for_run(one) for one in (guesses if names is None else [names])]
    files = [sink for sink in sinks if isinstance(sink, WritesFiles)]
    paths = [path for sink in files for path in sink.writes(SOME_RUNS)]
    check_needed(paths, ledger, jobfile)
    if isinstance(job.source, ReadsFiles):
        check_unread(job.source.describe(), job.source.reads(paths))
    for sink in files:
        sink.check(None if guessed else job.name, replaces=not (new and numbered))


def check_needed(paths: Sequence[Path], ledger: Path, jobfile: object) -> None:
    """`UsageError` where one of these paths, of an output, leads to the ledger or to what the job is made of."""
    beside = [ledger.with_name(f"{ledger.name}{suffix}") for suffix in ("-wal", "-shm", "-journal")]
    needed = [("the ledger", path) for path in (ledger, *beside)]
    needed += [("the job file", Path(jobfile))] if isinstance(jobfile, str) else []
    for name, one in needed:
        for path in paths:
            if os.path.realpath(path) == os.path.realpath(one) or _linked(path, one):
                raise UsageError(f"{path} would be written, and it is {name}: choose another path for the output")
    for path in paths:
        if path.suffix in _NO_DATA:
            raise UsageError(f"{path} has the name of a program or of settings: call the output {path.stem}.jsonl")


def check_unread(source: str, read: Sequence[Path]) -> None:
    """`UsageError` where the source reads some of the files that are to be written."""
    if read:
        raise UsageError(
            f"{read[0]} would be written, and it is read by the source {source}: choose another path for the output"
        )


def _linked(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)
