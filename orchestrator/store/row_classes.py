"""What rows of a source are to a run: new, edited, answered before or elsewhere, to be tried again, or discarded.

Rows are compared with what the ledger has by one statement for each chunk, which gives nothing for new ones.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import orjson

from orchestrator.domain.run import Plan
from orchestrator.store.chunks import POSITION_BITS
from orchestrator.store.known_chunks import Earlier, KnownChunk, Unlike, completed_in, unanswered
from orchestrator.store.settled import SETTLED

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

Rows: TypeAlias = "Sequence[NewItem] | KnownChunk"
Class: TypeAlias = Literal["new", "edited", "reused", "retry", "discarded"]


@dataclass(slots=True)  # not frozen: one is made for each row, and a frozen one takes three times as long
class NewItem:
    """One row, prepared for the ledger. `request` is None if the row is unreadable; `unreadable` then says why.

    `shares` identifies the request as it is sent, if the row may share the answer of another row with the same request.
    """

    item_id: str
    hash: str
    request: str | None
    kept: str | None
    unreadable: str | None = None
    shares: bytes | None = None


class Chunk(list[NewItem]):
    """Rows that are leased together. `texts`: the hash of their texts, if these alone made the rows."""

    texts: bytes | None = None


class RepeatedId(Exception):
    """Two rows of a run have the same id. Positions are counted from 0."""

    def __init__(self, item_id: str, first: int, position: int) -> None:
        super().__init__(item_id, first, position)
        self.item_id = item_id
        self.first = first
        self.position = position


class Version(NamedTuple):
    """An item of the job that has the id of a row. `place`: its position in the run; `earlier`: in the run before."""

    key: int
    hash: str
    request: str | None
    outcome: str | None
    settled: bool
    tried: bool
    place: int | None
    earlier: int | None


_VERSIONS = f"""
SELECT v.key, i.key, i.hash, i.request, r.outcome, {SETTLED},
       EXISTS (SELECT 1 FROM attempt a WHERE a.item_key = i.key),
       m.id & {(1 << POSITION_BITS) - 1}, e.id & {(1 << POSITION_BITS) - 1}
FROM json_each(:ids) v CROSS JOIN item i ON i.job_id = :job AND i.item_id = v.value
LEFT JOIN result r ON r.item_key = i.key LEFT JOIN member m ON m.item_key = i.key AND m.run_id = :run
LEFT JOIN member e ON e.item_key = i.key AND e.run_id = :earlier
"""
_ANSWERED_ELSEWHERE = """
SELECT v.key FROM json_each(:rows) v WHERE EXISTS (
    SELECT 1 FROM json_each(:others) j
    CROSS JOIN item o ON o.job_id = j.value AND o.item_id = v.value ->> 0 AND o.hash = v.value ->> 1
    CROSS JOIN result s ON s.item_key = o.key AND s.outcome = 'completed')
"""


@dataclass(frozen=True, slots=True)
class Which:
    """What rows are compared with."""

    job_id: int | None
    run_id: int | None
    before: Earlier | None
    reuse: Sequence[int]


def versions_of(
    connection: sqlite3.Connection, which: Which, position: int, rows: Sequence[NewItem]
) -> dict[int, list[Version]]:
    """The items that have the ids of these rows, by the row's index."""
    found: dict[int, list[Version]] = {}
    before = None if which.before is None else which.before.run_id
    values = {"job": which.job_id, "run": which.run_id, "earlier": before}
    for index, *version in connection.execute(_VERSIONS, values | {"ids": _json([row.item_id for row in rows])}):
        found.setdefault(index, []).append(Version(*version))
    if before is not None:
        for index, versions in found.items():
            _check_alike(rows[index], versions, position + index)
    return found


def _check_alike(row: NewItem, versions: Sequence[Version], position: int) -> None:
    """Raise `Unlike` if the run before has the row elsewhere, or a request that is the same item but not the same text.

    Such a row may be a second one with its id, or share its answer with others than their texts say.
    """
    for version in versions:
        moved = version.earlier not in {None, position}
        if moved or (version.hash == row.hash and version.request != row.request):
            raise Unlike


def classified_known(connection: sqlite3.Connection, which: Which, known: KnownChunk) -> tuple[Plan, Sequence[NewItem]]:
    """What the rows of a chunk of the run before are. Only those without an answer have to be looked at."""
    if which.before is None:
        raise Unlike
    completed = completed_in(connection, known)
    if completed == known.rows:
        return Plan(reused=completed), []
    left = [NewItem(*row, None) for row in unanswered(connection, which.before, known)]
    unlike = replace(which, before=None)
    plan, asked = classified(unlike, connection, left, versions_of(connection, unlike, 0, left))
    return Plan(reused=known.rows - len(left)) + plan, asked


def check_ids(rows: Sequence[NewItem], versions: Mapping[int, Sequence[Version]], position: int) -> None:
    """Raise `RepeatedId` for the first row whose id an earlier row of the run has."""
    places = {
        index: min(places)
        for index, some in versions.items()
        if (places := [version.place for version in some if version.place is not None])
    }
    if not places and len({row.item_id for row in rows}) == len(rows):
        return
    firsts: dict[str, int] = {}
    for index, row in enumerate(rows):
        first = places.get(index, firsts.setdefault(row.item_id, position + index))
        if first != position + index:
            raise RepeatedId(row.item_id, first, position + index)


def classified(
    which: Which,
    connection: sqlite3.Connection,
    rows: Sequence[NewItem],
    versions: Mapping[int, Sequence[Version]],
) -> tuple[Plan, Sequence[NewItem]]:
    """How many of the rows are what, and those that are to be asked."""
    elsewhere: set[int] = set()
    if which.reuse:
        slim = _json([[row.item_id, row.hash] for row in rows])
        found = connection.execute(_ANSWERED_ELSEWHERE, {"rows": slim, "others": _json(list(which.reuse))})
        elsewhere = {index for (index,) in found}
    special = versions.keys() | elsewhere
    classes = {index: class_of(rows[index], versions.get(index, ()), index in elsewhere) for index in special}
    counts = Counter[Class](classes.values())
    counts["new"] += len(rows) - len(special)
    asked = [row for index, row in enumerate(rows) if classes.get(index, "new") not in {"reused", "discarded"}]
    plan = Plan(**{str(name): number for name, number in counts.items()})
    return plan, asked


def class_of(row: NewItem, versions: Sequence[Version], elsewhere: bool) -> Class:  # noqa: FBT001 - three facts
    """What a row is, given the items with its id, and whether a job whose answers are reused has answered it."""
    same = next((version for version in versions if version.hash == row.hash), None)
    if same is not None and same.outcome == "completed":
        return "reused"
    if same is not None and same.settled:
        return "discarded"
    if elsewhere:
        return "reused"
    if same is not None and same.tried:
        return "retry"
    edited = any(version.hash != row.hash and (same is None or version.key < same.key) for version in versions)
    return "edited" if edited else "new"


def _json(rows: object) -> str:
    return orjson.dumps(rows).decode()
