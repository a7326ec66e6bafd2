"""A delivery to the Hub: Parquet files on this machine's disk first, then one commit with all of them."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.domain.dataset_card import card_part, without_folders
from orchestrator.domain.errors import StorageSilent, UsageError
from orchestrator.sinks.aside import Aside, writing
from orchestrator.sinks.delivery import json_lines, manifest_bytes
from orchestrator.sinks.existing_output import ExistingOutput
from orchestrator.sinks.hub_split import README, FoundSplit, card_of, check_ours, look
from orchestrator.storage.hub import hub_client, hub_package, using_hub, without_progress_bars

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from orchestrator.sinks.hub_split import HubSplit
    from orchestrator.sinks.typed_records import TypedRecords

    Manifest = Mapping[str, object]

_MOVED = 412  # the branch is not where the commit begins
_SAME = ("job", "counts", "finished", "fingerprint", "endpoint", "request", "files")  # in manifests of the same answers


@dataclass(frozen=True, slots=True)
class RepoChange:
    """What a delivery makes of the repo: files to add, by path, and files to delete."""

    add: Mapping[str, Path | bytes]
    delete: Sequence[str]


class HubDelivery:
    """The files of one delivery, which wait in a folder."""

    def __init__(
        self, split: HubSplit, folder: Path, records: TypedRecords, *, max_shard_bytes: int, card: bool
    ) -> None:
        self._split = split
        self._folder = folder
        self._records = records
        self._max_shard_bytes = max_shard_bytes
        self._has_card = card
        self._stack = ExitStack()
        self._completed = 0
        self._shards: list[Aside] = []

    def __enter__(self) -> Self:
        with writing(self._folder):
            self._failures = self._stack.enter_context(Aside(self._folder / "failures"))
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.close()

    def complete(self, records: Sequence[Mapping[str, object]]) -> None:
        """Write completed items."""
        with writing(self._folder):
            self._records.add(records)
            self._completed += len(records)

    def discard(self, records: Sequence[Mapping[str, object]]) -> None:
        """Write discarded items."""
        with writing(self._folder):
            self._failures.write(json_lines(records))
            self._failures.records += len(records)

    def seal(self, manifest: Manifest) -> Manifest:
        """Commit output, failures, manifest and card, unless all of this is there already. Return the manifest.

        Its `commit` is the commit that has the files. If nothing was completed, existing rows of the job stay. Raises
        `UsageError` if the delivery would replace files that are not the job's, or a finished output by an unfinished
        one; `StorageSilent` if the Hub breaks off, or others commit at the same time, again and again.
        """
        with writing(self._folder):
            self._write_shards()
            self._failures.sync()
        client = hub_client(self._split.repo)
        for last in (False, True):
            with using_hub(self._split.repo, write=True):
                found = self._found_or_made(client)
            check_ours(found, self._split, manifest.get("job"))
            sealed, change = self._change(found, manifest)
            commit = self._commit(client, found, change, sealed, last=last)
            if commit is not None:
                return {**sealed, "commit": commit}
        raise StorageSilent(f"{self._split.repo}: others commit to it at the same time: run again later")

    # -- the files ---------------------------------------------------------------------------------------------------

    def _write_shards(self) -> None:
        """Write one Parquet file after the other; there is one even without rows."""
        reader = self._records.reader()
        parts = _in_parts(reader, self._max_shard_bytes)
        part = next(parts, None)
        while part is not None or not self._shards:
            shard = self._stack.enter_context(Aside(self._folder / f"shard-{len(self._shards)}"))
            self._shards.append(shard)
            with pq.ParquetWriter(shard, reader.schema) as writer:
                while part is not None and (not shard.records or shard.size < self._max_shard_bytes):
                    writer.write_table(pa.Table.from_batches([part]))  # a row group, which is then on disk
                    shard.records += part.num_rows
                    part = next(parts, None)

    def _named(self, *, shards: bool) -> dict[str, Aside]:
        """Return the files that this delivery has, by name."""
        of = len(self._shards)
        named = {self._split.shard(number, of): shard for number, shard in enumerate(self._shards)} if shards else {}
        return named | ({self._split.failures: self._failures} if self._failures.records else {})

    # -- the commit --------------------------------------------------------------------------------------------------

    def _found_or_made(self, client: Any) -> FoundSplit:
        found = look(client, self._split)
        if found is None:
            visibility = "private" if self._split.private else "public"
            client.create_repo(self._split.repo, repo_type="dataset", visibility=visibility, exist_ok=True)
            found = look(client, self._split)
        if found is None:
            raise UsageError(f"{self._split.repo} was made, and the Hub does not show it to us: check the token")
        return found

    def _change(self, found: FoundSplit, manifest: Manifest) -> tuple[Manifest, RepoChange]:
        """Return the manifest as it will be there, and what to commit."""
        split = self._split
        before = found.before if found.before.job == manifest.get("job") else ExistingOutput()
        rows_before = sum(before.records(name) for name in before.files if split.is_shard(name))
        self._check_finished(before, rows_before, manifest)
        keeps = bool(not self._completed and self._failures.records and rows_before)
        named = self._named(shards=not keeps)
        types = {"types": self._records.types()}
        files = {name: file.sync() | (types if split.is_shard(name) else {}) for name, file in named.items()}
        kept = {name: about for name, about in before.files.items() if keeps and split.is_shard(name)}
        shown = without_folders(manifest if self._has_card else {**manifest, "request": None})
        sealed: Manifest = {
            **shown,
            **self._about(before, rows_before, found, manifest),
            "files": files | kept,
        }
        data = manifest_bytes(sealed)
        if _is_same(sealed, found, split):
            sealed, data = orjson.loads(found.manifest), found.manifest
        there = {**found.files, split.manifest: hashlib.sha256(found.manifest).hexdigest()}
        add: dict[str, Path | bytes] = {
            split.path(name): file.temporary for name, file in named.items() if there.get(name) != files[name]["sha256"]
        }
        add |= {} if data == found.manifest else {split.path(split.manifest): data}
        if self._has_card:
            rows = rows_before if keeps else self._completed
            card = self._card(sealed, data, found, rows)
            add |= {} if card == found.readme else {README: card}
        stay = {*files, *kept, split.manifest}
        return sealed, RepoChange(add, [split.path(name) for name in found.files if name not in stay])

    def _about(
        self, before: ExistingOutput, rows_before: int, found: FoundSplit, manifest: Manifest
    ) -> dict[str, object]:
        """Return what the manifest says about rows of an earlier delivery: they stay, or an older commit has them."""
        if self._completed >= rows_before:
            return {}
        if not self._completed and self._failures.records:
            return {"kept_from_run": before.made_by}
        if not before.is_of_the_same_rows(manifest):
            return {}
        address = f"hf://datasets/{self._split.repo}@{found.commit}/{self._split.pattern}.parquet"
        return {"earlier": {"run": before.made_by, "file": address, "records": rows_before}}

    def _check_finished(self, before: ExistingOutput, rows_before: int, manifest: Manifest) -> None:
        split = self._split
        if not split.overwrite and before.finished and rows_before and manifest.get("finished") is False:
            raise UsageError(
                f"hf://datasets/{split.repo}/{split.pattern} is the finished output of run {before.run}, and this "
                "one is not finished: choose another split, or replace it with `--overwrite`"
            )

    def _card(self, sealed: Manifest, data: bytes, found: FoundSplit, rows: int) -> bytes:
        split = self._split
        part = card_part(
            sealed,
            repo=split.repo,
            config=split.config,
            split=split.split,
            path=split.path(split.manifest),
            sha256=hashlib.sha256(data).hexdigest(),
        )
        return card_of(found, split, part, rows)

    def _commit(
        self, client: Any, found: FoundSplit, change: RepoChange, sealed: Manifest, *, last: bool
    ) -> str | None:
        """Return the commit; None if somebody else has committed meanwhile, or the answer was lost: look again."""
        if not change.add and not change.delete:
            return found.commit
        package, repo = hub_package(self._split.repo), self._split.repo
        added = [
            package.CommitOperationAdd(path, str(data) if isinstance(data, Path) else data)
            for path, data in change.add.items()
        ]
        deleted = [package.CommitOperationDelete(path, is_folder=False) for path in change.delete]
        with without_progress_bars(repo), using_hub(repo, write=True):
            client.preupload_lfs_files(repo, added, repo_type="dataset", free_memory=False)
        counts = sealed.get("counts")
        completed = counts.get("completed") if isinstance(counts, dict) else self._completed
        message = f"Deliver run {sealed.get('run')} of job {sealed.get('job')}: {completed} rows"
        try:
            with without_progress_bars(repo), using_hub(repo, write=True):
                done = client.create_commit(
                    repo, [*added, *deleted], commit_message=message, repo_type="dataset", parent_commit=found.commit
                )
        except (StorageSilent, UsageError) as failure:
            answered = getattr(failure.__cause__, "response", None)
            moved = answered is not None and answered.status_code == _MOVED
            if moved or (isinstance(failure, StorageSilent) and not last):
                return None
            raise
        oid: str = done.oid
        return oid


def _is_same(sealed: Manifest, found: FoundSplit, split: HubSplit) -> bool:
    """Whether the Hub has the same answers of the same job, made in the same way, so that no commit is needed."""
    if not found.manifest or found.files.keys() - {split.manifest} != _table(sealed.get("files")).keys():
        return False
    if any(found.files[name] != about["sha256"] for name, about in _table(sealed.get("files")).items()):
        return False
    there = orjson.loads(found.manifest)
    return all(there.get(name) == sealed.get(name) for name in _SAME) and (
        _table(there.get("input")).get("sha256") == _table(sealed.get("input")).get("sha256")
    )


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _in_parts(batches: Iterable[pa.RecordBatch], size: int) -> Iterator[pa.RecordBatch]:
    """Yield the batches in parts of about that many bytes."""
    for batch in batches:
        rows = max(1, batch.num_rows * size // max(batch.nbytes, 1))
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)
