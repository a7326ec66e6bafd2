"""Batch files: requests, or results, in the formats of OpenAI and of other services."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from orchestrator.domain.batch_dialects import CHAT, read_line
from orchestrator.domain.batch_lines import ROUTES, Route
from orchestrator.domain.item import Row
from orchestrator.sources.columns import identified
from orchestrator.sources.jsonl import JsonlSource
from orchestrator.sources.reading import FileSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.domain.location import Target


@dataclass(frozen=True, slots=True)
class BatchFileSource(FileSource):
    """The requests in files made for a batch service, or the results that one has returned.

    A row has the columns `custom_id`, which is its id, and `body`: the body of a request, in OpenAI's shape, whatever
    service the file was made for. In a file of results, `body` is that of the response, null if there was none, and
    there are also `status_code` and `error`. A line that cannot be read, or asks what `route` lacks, is one unreadable
    row. The services: docs/batch_dialects.md.
    `route`: what requests are for; a line for another route is unreadable.
    `model`: replaces the model that the requests name. By default it stays as it is.
    """

    suffixes: ClassVar[Sequence[Sequence[str]]] = JsonlSource.suffixes

    route: Route = CHAT
    model: str | None = None

    def __post_init__(self) -> None:
        FileSource.__post_init__(self)
        if self.route not in ROUTES:
            raise ValueError(f"route must be one of {', '.join(ROUTES)}, not {self.route!r}")

    @contextmanager
    def _open(self, path: Target) -> Iterator[Iterator[Row]]:
        with JsonlSource(path).rows() as rows:
            yield (self._row(row, number) for number, row in enumerate(rows, 1))

    def _row(self, row: Row, number: int) -> Row:
        if row.unreadable is not None:
            return row
        try:
            columns = read_line(row.columns, self.route, self.model)
        except ValueError as error:
            custom_id = row.columns.get("custom_id")
            return Row(row.columns, custom_id if isinstance(custom_id, str) else None, f"request {number} {error}")
        anonymous = columns["custom_id"] is None and "status_code" not in columns
        return identified(columns, None if anonymous else "custom_id", "request", number)
