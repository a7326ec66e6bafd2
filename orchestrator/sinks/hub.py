"""A dataset on the Hugging Face Hub.

A `HubSink` is no file sink, because each file that is written through the Hub's file system is a commit of its own.
`look` (`sinks/hub_split.py`) reads a repo at one commit. `HubDelivery` writes the files to a `staging` folder on this
machine and decides what has to change in the repo (`RepoChange`). One commit, whose parent is the one that was looked
at, makes the change. If the branch has moved, or the answer was lost, it looks again, once. `domain/dataset_card.py`
words our part of the card, and `sinks/readme.py` puts it into what others wrote.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self

from orchestrator.domain.errors import UsageError
from orchestrator.domain.item import columns_to_keep
from orchestrator.domain.location import Location
from orchestrator.domain.placeholders import filled, placeholders_in
from orchestrator.sinks.delivery import output_columns
from orchestrator.sinks.existing_output import REMEDY
from orchestrator.sinks.hub_delivery import HubDelivery
from orchestrator.sinks.hub_split import HubSplit, card_of, check_ours, look
from orchestrator.sinks.output_schema import declared, schema_form
from orchestrator.sinks.staging import staging
from orchestrator.sinks.typed_records import TypedRecords
from orchestrator.storage.hub import account_of, hub_client, using_hub

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from orchestrator.sinks.output_schema import DeclaredType


_NAME = r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?"
_REPO = re.compile(rf"{_NAME}/{_NAME}", re.ASCII)
_SPLIT = re.compile(r"\w+(\.\w+)*")  # as `datasets` reads it
_CONFIG = re.compile(_NAME, re.ASCII)
_SAMPLE = {"run": "1", "date": "2026-01-31", "job": "job"}


@dataclass(frozen=True, slots=True, init=False)
class HubSink:
    """Answers as a dataset on the Hugging Face Hub, with one commit for each delivery. Needs the extra `hub`.

    `repo`: OWNER/NAME; it is made with this `visibility` if it does not exist. `split` and `config` say what
    `load_dataset` calls the rows. `{run}`, `{date}` and `{job}` in all three are filled in for each run. Beside the
    Parquet files, of at most about `max_shard_bytes` each, are the failures and the manifest. `card`: keep our part of
    README.md up to date, which shows the prompt. Files of the same split that no delivery of the same job has written
    are replaced only with `overwrite`. `schema`: the type of the outputs, as for `ParquetSink`.
    """

    repo: str
    keep: tuple[str, ...]
    split: str
    config: str
    visibility: Literal["private", "public"]
    card: bool
    max_shard_bytes: int
    overwrite: bool
    schema: Mapping[str, object] | None

    def __init__(  # noqa: PLR0913 - its settings
        self,
        repo: str,
        keep: Iterable[str] = (),
        *,
        split: str = "train",
        config: str = "default",
        visibility: Literal["private", "public"] = "private",
        card: bool = True,
        max_shard_bytes: int = 500_000_000,
        overwrite: bool = False,
        schema: DeclaredType | None = None,
    ) -> None:
        _check_name("repo", repo, _REPO, "OWNER/NAME")
        _check_name("split", split, _SPLIT, "letters, digits and _ alone")
        _check_name("config", config, _CONFIG, "letters, digits, -, _ and .")
        if config == "data":
            raise UsageError("config='data' would share a folder with the config 'default': choose another name")
        if visibility not in {"private", "public"}:
            raise UsageError(f"visibility={visibility!r} must be 'private' or 'public'")
        if max_shard_bytes <= 0:
            raise UsageError(f"max_shard_bytes={max_shard_bytes} must be above 0")
        for name, value in (
            ("repo", repo),
            ("keep", columns_to_keep(keep)),
            ("split", split),
            ("config", config),
            ("visibility", visibility),
            ("card", card),
            ("max_shard_bytes", max_shard_bytes),
            ("overwrite", overwrite),
            ("schema", schema_form(schema)),
        ):
            object.__setattr__(self, name, value)

    @property
    def placeholders(self) -> frozenset[str]:
        """The placeholders in repo, config and split."""
        return placeholders_in(f"{self.repo} {self.config} {self.split}")

    def describe(self) -> str:
        """Return the address of the Parquet files, which sources can read."""
        return f"hf://datasets/{self.repo}/{self._split().pattern}.parquet"

    def writes(self, runs: Iterable[object] = ()) -> tuple[Location, ...]:
        """Return where a delivery with one Parquet file writes, in both ways to name the main branch.

        Earlier outputs are in earlier commits, so `runs` name no more.
        """
        split = self._split()
        names = (split.shard(0, 1), split.failures, split.manifest)
        places = [f"hf://datasets/{self.repo}{branch}" for branch in ("", "@main")]
        return tuple(Location(f"{place}/{split.path(name)}") for place in places for name in names)

    def for_run(self, names: Mapping[str, str]) -> Self:
        """Return the same sink with its placeholders filled in."""
        repo, split, config = (filled(text, names) for text in (self.repo, self.split, self.config))
        return replace(self, repo=repo, split=split, config=config)

    def for_part(self, job: str, limit: int, names: Mapping[str, str]) -> Self:
        """Return the sink for the first `limit` rows: split `<split>_first_<limit>` if this job's split has more."""
        one = self.for_run(names)
        with using_hub(one.repo):
            found = look(hub_client(one.repo), one._split())  # noqa: SLF001 - of this class
        if found is None or not found.before.has_more(job, limit):
            return self
        return replace(self, split=f"{self.split}_first_{limit}")

    def check(self, job: str | None, *, replaces: bool = True) -> None:
        """Raise `UsageError` if we may not write to the repo, or if its files of this split are not this job's.

        Raises `StorageSilent` if the Hub does not answer.
        """
        client, split = hub_client(self.repo), self._split()
        with using_hub(self.repo, write=True):
            found = look(client, split)
            if found is None:
                self._check_owner(account_of(client, self.repo))
            else:
                client.auth_check(self.repo, repo_type="dataset", write=True)
        if found is not None:
            check_ours(found, split, job)
            if self.card:
                card_of(found, split, "", 0)
            if not replaces and found.files and not self.overwrite:
                raise UsageError(
                    f"{self.describe()} belongs to an earlier run with the same number in another ledger: {REMEDY}"
                )

    @contextmanager
    def open(self) -> Iterator[HubDelivery]:
        """Begin a delivery. Unless it is sealed before the block ends, nothing on the Hub changes."""
        columns, output = output_columns(self.keep), None if self.schema is None else declared(self.schema)
        with staging() as folder, (folder / "records").open("w+b") as waiting:
            records = TypedRecords(waiting, columns, output)
            with HubDelivery(
                self._split(), folder, records, max_shard_bytes=self.max_shard_bytes, card=self.card
            ) as delivery:
                yield delivery

    def _split(self) -> HubSplit:
        return HubSplit(self.repo, self.config, self.split, self.visibility == "private", self.overwrite)

    def _check_owner(self, account: Mapping[str, Any]) -> None:
        names = [account["name"], *(org["name"] for org in account.get("orgs", ()))]
        if (owner := self.repo.partition("/")[0]) not in names:
            raise UsageError(
                f"{self.repo} does not exist, and the owner of the Hugging Face token, {names[0]}, cannot make it for "
                f"{owner}: use one of {', '.join(map(str, names))}, or another token"
            )


def _check_name(what: str, given: str, valid: re.Pattern[str], remedy: str) -> None:
    try:
        sample = filled(given, _SAMPLE)
    except ValueError as failure:
        raise UsageError(str(failure)) from failure
    if not valid.fullmatch(sample):
        raise UsageError(f"{what}={given!r} is not a name that the Hub takes: write {remedy}")
