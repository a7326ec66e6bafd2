"""Drafts: what a row becomes before its final id is known."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator import exact_json
from orchestrator.domain.item import File
from orchestrator.domain.json_values import shortest
from orchestrator.domain.request import MissingColumn, drawn_by_chance
from orchestrator.engine.asking.request_json import JSON, SORTED, as_object, as_stored, request_json
from orchestrator.store.row_classes import NewItem

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from orchestrator.domain.item import Row
    from orchestrator.job import Job

_NOTHING_READABLE = "no row can be read: check that it is the right file, and the source for its format"


@dataclass(slots=True)
class Draft(NewItem):
    """An item whose id may still need a number, if it was made from the content: `by_content`.

    `amiss`: an error of the job rather than of the row, if every row has it. `text`: as in `Row`.
    """

    by_content: bool = False
    amiss: str | None = None
    text: bytes | None = None


class DraftMaker:
    """Makes an item from a row, whatever the row contains."""

    def __init__(self, job: Job, identity: Mapping[str, object]) -> None:
        self.source = job.source.describe()
        self._render = job.renderer()
        self._shape = hashlib.blake2b(exact_json.dumps(identity, as_stored, SORTED), digest_size=16)
        self._dedupe = job.policy.dedupe and job.rollout is None and not drawn_by_chance(identity)
        self._keep = [name for name in job.kept if name != "id"]
        self._keeps_id = "id" in job.kept
        self._never_seen = set(self._keep)
        self._columns: Collection[str] = ()  # columns of the first readable row

    def never_kept(self, rest: Iterable[Row]) -> str | None:
        """Return a column in `keep` that no row has, including the `rest` beyond the limit; None if there is none."""
        for row in rest if self._never_seen else ():
            self._see(row)
            if not self._never_seen:
                break
        missing = next((name for name in self._keep if name in self._never_seen), None)
        if missing is None or not self._columns:
            return None
        return f"column {missing!r} of `keep` is not among the rows' columns ({', '.join(map(str, self._columns))})"

    def _see(self, row: Row) -> None:
        if row.unreadable is None:
            self._columns = self._columns or row.columns.keys()
            self._never_seen.difference_update(row.columns)

    def __call__(self, row: Row) -> Draft:
        """Return the row's draft; it says why if no request can be made."""
        request, kept, why = None, None, row.unreadable
        amiss = None
        if why is not None:
            amiss = f"{why}; correct `id` in the job file" if row.idless else f"{why}; {_NOTHING_READABLE}"
        if self._never_seen:
            self._see(row)
        hashed, portable = b"", None
        try:
            kept = self._kept(row)
            if why is None:
                rendered = self._render(row.columns)
                request, sent, hashed = request_json(rendered)
                portable = sent if self._dedupe and not drawn_by_chance(rendered) else None
        except MissingColumn as error:
            why = str(error)
            amiss = f"{why}; correct `request` in the job file"
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - the job's own function, the row's own values; the row bears it
            why = f"no request could be made: {_column_with(row, error)}{type(error).__name__}: {error}"
        content = _content(row) if row.id is None or request is None else b""
        digest = self._shape.copy()
        digest.update(content if request is None else hashed)
        identity = digest.digest()
        name = hashlib.blake2b(content, digest_size=8).hexdigest() if row.id is None else row.id
        text = None if request is None else request.decode()
        # what is hashed is what is sent, but for the order of keys, so there is mostly one hash to make
        shares = None if portable is None else identity if portable == hashed else _hash_of(portable)
        return Draft(name, identity.hex(), text, kept, why, shares, row.id is None, amiss, row.text)

    def _kept(self, row: Row) -> str | None:
        """Return the columns to keep, as JSON, with the output's `id` if it differs from the item's."""
        if not self._keep and not self._keeps_id and row.given_id is None:
            return None
        kept = {name: row.columns.get(name) for name in self._keep}
        kept |= {name: shortest(kept[name]) for name in row.float32.intersection(kept)}
        if self._keeps_id and row.columns.get("id", row.id) != row.id:
            kept["id"] = row.columns["id"]
        elif row.given_id is not None:
            kept["id"] = row.given_id
        return exact_json.dumps(kept, _plain, JSON).decode() if kept else None


def _column_with(row: Row, error: BaseException) -> str:
    """Return which column has the value that JSON does not know, if that is the error."""
    for name, value in row.columns.items():
        try:
            request_json(value)
        except Exception as own:  # noqa: BLE001 - whatever the value does
            if (type(own), str(own)) == (type(error), str(error)):
                return f"column {name!r}: "
    return ""


def _hash_of(sent: bytes) -> bytes:
    return hashlib.blake2b(sent, digest_size=16).digest()


def _content(row: Row) -> bytes:
    """Return the row's own columns as bytes, for an id or a hash, even if JSON cannot represent them."""
    columns = {name: value for name, value in row.columns.items() if name not in row.from_path}
    try:
        return exact_json.dumps(columns, _plain, SORTED)
    except TypeError:
        return repr(sorted(columns.items(), key=str)).encode(errors="backslashreplace")


def _plain(value: object) -> object:
    """Return a readable form of a value that JSON does not know."""
    if isinstance(value, File):
        return value.path
    try:
        return as_object(value)
    except TypeError:
        return str(value)
