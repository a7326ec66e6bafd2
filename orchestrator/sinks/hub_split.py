"""One split of a dataset on the Hub: its files there, and whether a job may replace them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.domain.errors import UsageError
from orchestrator.sinks.existing_output import REMEDY, ExistingOutput, described_by, whose_manifest
from orchestrator.sinks.readme import DataFiles, readme
from orchestrator.storage.hub import hub_files, hub_package

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

README = "README.md"


@dataclass(frozen=True, slots=True)
class HubSplit:
    """The split that a sink delivers: the names of its files, and what may be done to the repo.

    `private`: what is delivered must not become public. `overwrite`: replace files that are not the job's.
    """

    repo: str
    config: str
    split: str
    private: bool
    overwrite: bool

    @property
    def folder(self) -> str:
        """The folder in the repo, with the name that `push_to_hub` gives it."""
        return "data" if self.config == "default" else self.config

    @property
    def pattern(self) -> str:
        """What matches the paths of the Parquet files."""
        return f"{self.folder}/{self.split}-*"

    @property
    def failures(self) -> str:
        """The name of the file with the discarded items."""
        return f"{self.split}.failures.jsonl"

    @property
    def manifest(self) -> str:
        """The name of the manifest."""
        return f"{self.split}.manifest.json"

    def shard(self, number: int, of: int) -> str:
        """Return the name of a Parquet file, counted from 0."""
        return f"{self.split}-{number:05}-of-{of:05}.parquet"

    def is_shard(self, name: str) -> bool:
        """Whether the pattern matches the file with this name, so that its rows are loaded with the split."""
        return name.startswith(f"{self.split}-")

    def has(self, name: str) -> bool:
        """Whether the file with this name belongs to the split."""
        return self.is_shard(name) or name in {self.failures, self.manifest}

    def path(self, name: str) -> str:
        """Return the path in the repo of the file with this name."""
        return f"{self.folder}/{name}"


@dataclass(frozen=True, slots=True)
class FoundSplit:
    """A repo at one commit, with the split's files by name: their SHA-256."""

    commit: str
    private: bool
    files: Mapping[str, str] = field(default_factory=dict)
    manifest: bytes = b""
    readme: bytes | None = None
    others: Sequence[str] = ()  # the paths of all other files

    @property
    def before(self) -> ExistingOutput:
        """What the manifest says."""
        return described_by(self.manifest)


def look(client: Any, split: HubSplit) -> FoundSplit | None:
    """Return what is on the Hub; None if there is no such repo, or none that we may see."""
    errors = hub_package(split.repo, ".errors")
    try:
        info = client.dataset_info(split.repo)
    except errors.GatedRepoError:
        raise
    except errors.RepositoryNotFoundError:
        return None
    at = {"repo_type": "dataset", "revision": info.sha}
    try:
        entries = [one for one in client.list_repo_tree(split.repo, split.folder, **at) if hasattr(one, "blob_id")]
    except errors.EntryNotFoundError:
        entries = []
    ours = {name: one for one in entries if split.has(name := one.path.rpartition("/")[2])}
    has_readme = bool(client.get_paths_info(split.repo, [README], **at))
    paths = [split.path(name) for name, one in ours.items() if name == split.manifest or not one.lfs]
    files = hub_files(split.repo)  # it keeps listings, so a later look needs another one
    small = {
        path: files.cat_file(f"datasets/{split.repo}@{info.sha}/{path}") for path in [*paths, *[README] * has_readme]
    }
    sha256 = {path: hashlib.sha256(content).hexdigest() for path, content in small.items()}
    return FoundSplit(
        info.sha,
        bool(info.private),
        {name: one.lfs.sha256 if one.lfs else sha256[split.path(name)] for name, one in ours.items()},
        small.get(split.path(split.manifest), b""),
        small[README] if has_readme else None,
        [one.rfilename for one in info.siblings or () if one.rfilename not in {split.path(name) for name in ours}],
    )


def check_ours(found: FoundSplit, split: HubSplit, job: object) -> None:
    """Raise `UsageError` if the repo is public against our wish, or has files of the split that are not this job's.

    `job`: None checks only the repo.
    """
    if split.private and not found.private:
        raise UsageError(
            f"{split.repo} is public, and the sink is to deliver in private: set its visibility='public', or make the "
            "dataset private in its settings on the Hub"
        )
    if job is None or split.overwrite:
        return
    before, where = found.before, f"hf://datasets/{split.repo}/{split.folder}"
    if split.manifest in found.files and before.job != job:
        raise UsageError(f"{where}/{split.manifest} {whose_manifest(before)}: {REMEDY}")
    for name, sha256 in found.files.items():
        if name == split.manifest or before.files.get(name, {}).get("sha256") == sha256:
            continue
        if name in before.files:
            raise UsageError(f"{where}/{name} was changed since run {before.made_by} of job {job!r} wrote it: {REMEDY}")
        raise UsageError(f"{where}/{name} is a file that no delivery of job {job!r} has written: {REMEDY}")


def card_of(found: FoundSplit, split: HubSplit, part: str, rows: int) -> bytes:
    """Return README.md with our part for this many rows. Raises `UsageError` if what is there cannot be kept."""
    files = DataFiles(split.config, split.split, split.pattern, rows, found.others, split.overwrite)
    return readme(found.readme, part, files, title=split.repo.partition("/")[2], where=f"{split.repo}/{README}")
