"""A delivery to files: the output, the failures and the manifest, written aside and put in place together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import orjson

from orchestrator.domain.errors import UsageError
from orchestrator.domain.placeholders import escaped, filled, placeholders_in
from orchestrator.sinks.aside import Aside, sync_folder, writing
from orchestrator.sinks.lines import json_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_OURS = frozenset({"output", "error", "attempts"})


class RecordWriter(ABC):
    """Writes records into a file aside in one format, with these columns in this order; what a record lacks is null."""

    def __init__(self, file: Aside, columns: Sequence[str]) -> None:
        self._file = file
        self._columns = columns

    @abstractmethod
    def write(self, records: Sequence[Mapping[str, object]]) -> None:
        """Add the records."""

    def finish(self) -> None:  # noqa: B027 - only a format that must know every record has one
        """Write what can be written only when every record is known."""


@dataclass(frozen=True, slots=True, init=False)
class FileSink:
    """One output file; beside it `<stem>.manifest.json` and, where there are failures, `<stem>.failures.jsonl`.

    The path is made absolute, `~` is expanded; `{run}`, `{date}` and `{job}` in it are filled in for each run (a brace
    itself is written twice). The output has the columns id, those to `keep`, output, in that order.
    """

    path: Path
    keep: tuple[str, ...]

    writer: ClassVar[type[RecordWriter]]

    def __init__(self, path: str | Path, keep: Iterable[str] = ()) -> None:
        try:
            given = Path(path).expanduser()
            absolute = given if given.is_absolute() else Path(escaped(str(Path.cwd()))) / given
        except RuntimeError as failure:
            raise UsageError(f"{path} names a home folder that does not exist: write the path out") from failure
        try:
            placeholders_in(str(path))
        except ValueError as failure:
            raise UsageError(str(failure)) from failure
        if isinstance(keep, str):
            raise UsageError(f"keep={keep!r} is one text: give a list of columns")
        columns = tuple(dict.fromkeys(keep))
        if taken := _OURS.intersection(columns):
            raise UsageError(f"the column {min(taken)!r} cannot be kept, as the answers use that name: rename it")
        object.__setattr__(self, "path", absolute)
        object.__setattr__(self, "keep", columns)

    def for_run(self, names: Mapping[str, str]) -> Self:
        """The same sink with the placeholders in its path filled in."""
        one = copy(self)
        object.__setattr__(one, "path", Path(filled(str(self.path), names)))
        return one

    @contextmanager
    def open(self) -> Iterator[FileDelivery]:
        """Begin a delivery. Unless it is sealed when the block ends, no file has appeared or changed."""
        stem = self.path.stem
        names = self.path.name, f"{stem}.failures.jsonl", f"{stem}.manifest.json"
        columns = ["id", *(name for name in self.keep if name != "id"), "output"]
        with ExitStack() as stack:
            with writing(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                output, failures, manifest = (stack.enter_context(Aside(self.path.with_name(name))) for name in names)
                delivery = FileDelivery(output, failures, manifest, type(self).writer(output, columns))
            yield delivery


class FileDelivery:
    """The files of one delivery while they are being written aside."""

    def __init__(self, output: Aside, failures: Aside, manifest: Aside, writer: RecordWriter) -> None:
        self._output = output
        self._failures = failures
        self._manifest = manifest
        self._writer = writer

    def complete(self, records: Sequence[Mapping[str, object]]) -> None:
        """Write completed items."""
        with writing(self._output.path):
            self._writer.write(records)
            self._output.records += len(records)

    def discard(self, records: Sequence[Mapping[str, object]]) -> None:
        """Write discarded items."""
        with writing(self._failures.path):
            self._failures.write(json_lines(records))
            self._failures.records += len(records)

    def seal(self, manifest: Mapping[str, object]) -> None:
        """Put the output, the failures and the manifest in place, once all three are on disk."""
        with writing(self._output.path):
            self._writer.finish()
            written = [self._output, self._failures] if self._failures.records else [self._output]
            files = {file.path.name: file.sync() for file in written}
            option = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
            self._manifest.write(orjson.dumps({**manifest, "files": files}, option=option))
            self._manifest.sync()
            for file in written:
                file.put_in_place()
            if not self._failures.records:
                self._failures.path.unlink(missing_ok=True)
            self._manifest.put_in_place()
            sync_folder(self._output.path.parent)
