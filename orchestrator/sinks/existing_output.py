"""The files that exist where a delivery writes: whether the job may replace them, and whether they are worth more."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from orchestrator.domain.errors import UsageError
from orchestrator.domain.file_names import divided
from orchestrator.sinks.aside import left_aside
from orchestrator.sinks.upload import announced
from orchestrator.storage import contents, exists, opened, storage_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from orchestrator.domain.location import Target

REMEDY = "choose another path, or replace it with `--overwrite` or `overwrite=True` in the sink"


@dataclass(frozen=True, slots=True)
class ExistingOutput:
    """The manifest of an earlier delivery, as far as it can be read; `job` is None if there is none."""

    job: object = None
    run: object = None
    finished: bool = False
    files: Mapping[str, dict[str, object]] = field(default_factory=dict)
    kept_from_run: object = None
    limit: object = None
    source: object = None
    manifest: Mapping[str, object] = field(default_factory=dict)

    def is_same_delivery(self, manifest: Mapping[str, object]) -> bool:
        """Whether another manifest says the same, except for when it was delivered."""
        return {**self.manifest, "delivered_at": None} == {**manifest, "delivered_at": None}

    @property
    def made_by(self) -> object:
        """The run whose output it is."""
        return self.kept_from_run or self.run

    def is_of_the_same_rows(self, manifest: Mapping[str, object]) -> bool:
        """Whether another delivery's run read exactly the same rows."""
        read = manifest.get("input")
        return (self.source, self.limit) == (
            (read.get("sha256"), read.get("limit")) if isinstance(read, dict) else (None, None)
        )

    def has_more(self, job: str, limit: int) -> bool:
        """Whether it is this job's and was made from more rows than these: from all rows if it names no limit."""
        return self.job == job and (not isinstance(self.limit, int) or self.limit > limit)

    def records(self, name: str) -> int:
        """Return how many records the manifest counts in a file."""
        records = self.files.get(name, {}).get("records")
        return records if isinstance(records, int) else 0


def standing(manifest: Target) -> ExistingOutput:
    """Read a manifest; return an empty one if there is none or it is not ours."""
    try:
        return described_by(contents(manifest))
    except OSError:
        return ExistingOutput()


def described_by(manifest: bytes) -> ExistingOutput:
    """Return what a manifest says; an empty one if it is not ours."""
    try:
        found = orjson.loads(manifest)
        files = {str(name): dict(about) for name, about in found["files"].items()}
        read = dict(found.get("input", {}))
        return ExistingOutput(
            found.get("job"),
            found.get("run"),
            bool(found.get("finished")),
            files,
            found.get("kept_from_run"),
            read.get("limit"),
            read.get("sha256"),
            found,
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return ExistingOutput()


def stamp_of(files: tuple[Target, Target, Target], before: ExistingOutput, settings: str) -> str | None:
    """Return a text that changes with output, failures, manifest or settings, without reading the files.

    `before`: what the manifest says. None if a file is missing, has another size, or is in a store without versions.
    """
    found = [_stat(file) for file in files]
    sizes = [before.files.get(file.name, {}).get("bytes") for file in files[:2]]
    told = all(version is not None or size is None for size, version in found)
    if before.job is None or files[0].name not in before.files or sizes != [size for size, _ in found[:2]] or not told:
        return None
    return hashlib.sha256(orjson.dumps([settings, [str(file) for file in files], found])).hexdigest()


def check_places(targets: Sequence[Target]) -> None:
    """Raise `UsageError` if one of these files cannot be written, as far as can be seen without writing it."""
    for path in targets:
        if isinstance(path, Path):
            _check_place(path)
    if locations := [target for target in targets if not isinstance(target, Path)]:  # all in one bucket
        storage_of(locations[0]).check_writable(locations[0])


def _check_place(path: Path) -> None:
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is not a file, and nothing else is replaced: give the path of a file")
    place = Path(os.path.realpath(path)) if path.is_symlink() else path
    if place != path and not place.parent.is_dir():
        raise UsageError(f"{path} is a link to {place}, whose folder does not exist: make it, or remove the link")
    folder = next(parent for parent in place.parents if os.path.lexists(parent))
    if not folder.is_dir():
        raise UsageError(f"{path} cannot be written ({folder} is not a folder): choose another path")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(
            f"{path} cannot be written (no permission in {folder}): give this user permission to write there, "
            "or choose another folder"
        )


def check_own(files: Sequence[Target], manifest: Target, job: object) -> None:
    """Raise `UsageError` if an existing file is not, byte for byte, what a delivery of this job has written."""
    before = standing(manifest)
    if exists(manifest) and before.job != job:
        renamed = (
            f"; if that job was renamed, `--reuse {before.job} --overwrite` keeps its answers and replaces its output"
            if before.job
            else ""
        )
        raise UsageError(f"{manifest} {whose_manifest(before)}: {REMEDY}{renamed}")
    for path in files:
        if not exists(path) or _is_as_written(path, [before, *_left_by(manifest, job)]):
            continue
        if path.name in before.files:
            raise UsageError(f"{path} was changed since run {before.made_by} of job {job!r} wrote it: {REMEDY}")
        raise UsageError(f"{path} is a file that no delivery of job {job!r} has written: {REMEDY}")


def beside(path: Target, name: str) -> Target:
    """Return the file of this name in the same folder."""
    return path.parent / name if isinstance(path, Path) else path.with_name(name)


def kept_as(output: Target, run: object) -> Target:
    """Return where that run's output is kept when an output with fewer rows takes its place."""
    stem, suffix = divided(output.name)
    return output.with_name(f"{stem}.run-{run}{suffix}")


def check_new(files: Sequence[Target]) -> None:
    """Raise `UsageError` if files of this run exist although it never delivered: an older run had its number."""
    for path in files:
        if exists(path):
            raise UsageError(f"{path} belongs to an earlier run with the same number in another ledger: {REMEDY}")


def whose_manifest(before: ExistingOutput) -> str:
    """Say whose manifest it is that is not the job's."""
    return "is not a manifest of ours" if before.job is None else f"is the manifest of job {before.job!r}"


def _is_as_written(path: Target, said: Sequence[ExistingOutput]) -> bool:
    """Whether the file is byte for byte what one of these manifests names."""
    abouts = [one.files[path.name] for one in said if path.name in one.files]
    with suppress(OSError):
        size, version = _stat(path)
        if version is not None and version in {about.get("version") for about in abouts}:
            return True
        if size in {about.get("bytes") for about in abouts}:  # hashing a large one takes a while
            return sha256_of(path) in {about.get("sha256") for about in abouts}
    return False


def _stat(path: Target) -> tuple[int | None, str | None]:
    """Return the size of a file and a text that changes when it is written or replaced; None for what is not known."""
    if isinstance(path, Path):
        with suppress(FileNotFoundError):
            stat = path.stat()
            return stat.st_size, f"{stat.st_ino} {stat.st_mtime_ns} {stat.st_ctime_ns}"
        return None, None
    found = storage_of(path).stat(path)
    return (None, None) if found is None else (found.size, found.version)


def sha256_of(path: Target) -> str:
    """Return the hash of a file's content."""
    with path.open("rb") if isinstance(path, Path) else opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _left_by(manifest: Target, job: object) -> Iterator[ExistingOutput]:
    """Return the manifests of this job's deliveries that were killed before their manifest was in place."""
    left = left_aside(manifest) if isinstance(manifest, Path) else [announced(manifest)]
    found = map(standing, left)
    return (one for one in found if one.job is not None and one.job == job)
