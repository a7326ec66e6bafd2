"""A delivery to files: output, failures and manifest, written under temporary names and renamed together."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import orjson

from orchestrator import exact_json
from orchestrator.domain.errors import UsageError
from orchestrator.domain.file_names import divided, packing_of
from orchestrator.domain.item import columns_to_keep
from orchestrator.domain.location import WEB, Location, target_of
from orchestrator.domain.placeholders import escaped, filled, placeholders_in
from orchestrator.sinks.aside import Aside, aside_of, writing
from orchestrator.sinks.existing_output import (
    ExistingOutput,
    beside,
    check_new,
    check_own,
    check_places,
    kept_as,
    sha256_of,
    stamp_of,
    standing,
)
from orchestrator.sinks.upload import FileToUpload, announced
from orchestrator.storage import delete, exists, storage_of
from orchestrator.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from orchestrator.domain.location import Target
    from orchestrator.sinks.output_file import OutputFile


class RecordWriter(ABC):
    """Writes records into a temporary file in one format, with these columns in this order; missing values are null."""

    def __init__(self, file: OutputFile, columns: Sequence[str]) -> None:
        self._file = file
        self._columns = columns

    @abstractmethod
    def write(self, records: Sequence[Mapping[str, object]]) -> None:
        """Add the records."""

    def failures(self, records: Sequence[Mapping[str, object]]) -> bytes:
        """Return what the failures file says of discarded items."""
        return json_lines(records)

    def finish(self) -> Mapping[str, object]:
        """Write whatever can be written only once every record is known. Return what the manifest says of the file."""
        return {}


@dataclass(frozen=True, slots=True, init=False)
class FileSink(ABC):
    """One output file; beside it `<stem>.manifest.json` and, if there are failures, `<stem>.failures.jsonl`.

    The path is made absolute and `~` is expanded; `{run}`, `{date}` and `{job}` in it are filled in for each run (write
    a literal brace twice). The output's columns are id, those to `keep`, and output, in that order.
    A file that no delivery of the same job has written is replaced only with `overwrite`.
    """

    packs: ClassVar[bool] = False  # whether `.gz` and the like after the path's suffix compress the output

    path: Path | Location
    keep: tuple[str, ...]
    overwrite: bool

    def __init__(self, path: str | Path, keep: Iterable[str] = (), *, overwrite: bool = False) -> None:
        try:
            placeholders_in(str(path))
        except ValueError as failure:
            raise UsageError(str(failure)) from failure
        object.__setattr__(self, "path", _output(path))
        object.__setattr__(self, "keep", columns_to_keep(keep))
        object.__setattr__(self, "overwrite", overwrite)

    @property
    def placeholders(self) -> frozenset[str]:
        """The placeholders in the path."""
        return placeholders_in(str(self.path))

    def describe(self) -> str:
        """Return the path."""
        return str(self.path)

    def for_run(self, names: Mapping[str, str]) -> Self:
        """Return the same sink with the placeholders in its path filled in."""
        one = copy(self)
        object.__setattr__(one, "path", type(self.path)(filled(str(self.path), names)))
        return one

    def for_part(self, job: str, limit: int, names: Mapping[str, str]) -> Self:
        """Return the sink for the first `limit` rows: another one if this job's output has more rows.

        The other one's path is `<stem>.first-<limit>`, because a part does not replace the whole. Reads the manifest.
        """
        if not standing(self.for_run(names)._files()[2]).has_more(job, limit):  # noqa: SLF001 - of this class
            return self
        part, (stem, suffix) = copy(self), divided(self.path.name)
        object.__setattr__(part, "path", self.path.with_name(f"{stem}.first-{limit}{suffix}"))
        return part

    def writes(self, runs: Iterable[object] = ()) -> tuple[Target, ...]:
        """Return every file that a delivery writes: output, failures, manifest, and their temporary names.

        `runs`: also the names under which outputs of these runs are kept if a delivery with fewer rows replaces them.
        """
        with writing(self.path):
            files = self._files()
            temporary = [aside_of(path) if isinstance(path, Path) else announced(path) for path in files]
            every = *files, *temporary, *(kept_as(self.path, run) for run in runs)
            for path in every:
                if isinstance(path, Path):
                    path.is_symlink()  # fails if the name is longer than the file system takes
        return every

    def standing(self) -> tuple[str, Mapping[str, object]] | None:
        """Return a text that changes with any file of the delivery or setting of the sink, and the manifest.

        Another package's sink has none, because what it writes may change with its code.
        """
        if not type(self).__module__.startswith(f"{__package__}."):
            return None
        files = self._files()
        with writing(self.path):
            before = standing(files[2])
            stamp = stamp_of(files, before, f"{self!r} {__version__}")
        return None if stamp is None else (stamp, before.manifest)

    def check(self, job: str | None, *, replaces: bool = True) -> None:
        """Raise `UsageError` if nothing can be written, or if it would replace a file that is not this job's."""
        files = self._files()
        with writing(self.path):
            check_places(self.writes())
            if job is not None and not self.overwrite:
                check_own(files[:2], files[2], job)
                if not replaces:
                    check_new(files)

    @abstractmethod
    def _writer(self, file: OutputFile, columns: Sequence[str]) -> RecordWriter:
        """Return a writer in the sink's format, with the columns in this order."""

    def _files(self) -> tuple[Target, Target, Target]:
        if not self.path.name:
            raise UsageError(f"{self.path} is not a file: give the path of a file")
        stem, _ = divided(self.path.name)
        failures, manifest = f"{stem}.failures.jsonl", f"{stem}.manifest.json"
        return self.path, self.path.with_name(failures), self.path.with_name(manifest)

    @contextmanager
    def open(self) -> Iterator[FileDelivery]:
        """Begin a delivery. Unless it is sealed before the block ends, no file appears or changes."""
        files = self._files()
        columns = output_columns(self.keep)
        with ExitStack() as stack:
            with writing(self.path):
                check_places(files)
                packing = packing_of(self.path.name) if self.packs else None
                output, failures, manifest = (stack.enter_context(file) for file in _begun(files, packing))
                writer = self._writer(output, columns)
            yield FileDelivery(output, failures, manifest, writer, overwrite=self.overwrite)


def _output(given: str | Path) -> Target:
    """Return where an output is written: its absolute path or its location, which may have placeholders."""
    target = target_of(given)
    if str(given).endswith("/"):  # `Path` would drop it
        raise UsageError(f"{given} is a folder, and an output is a file: give its path, such as {given}out.jsonl")
    if isinstance(target, Path):
        return target if target.is_absolute() else Path(escaped(str(Path.cwd()))) / target
    if target.scheme in WEB:
        raise UsageError(
            f"{target} cannot be written ({target.scheme}:// is only read): give a path, or s3://, gs://, abfs:// or hf://"
        )
    if target.is_pattern:
        raise UsageError(f"{target} is a pattern, and an output needs one name: leave out *, ? and [")
    return target


def _begun(files: tuple[Target, Target, Target], packing: str | None) -> tuple[OutputFile, OutputFile, OutputFile]:
    """Return the files of a delivery, of which only the output is compressed. Clean up what killed deliveries left."""
    output, failures, manifest = files
    if isinstance(output, Path) and isinstance(failures, Path) and isinstance(manifest, Path):
        output.parent.mkdir(parents=True, exist_ok=True)
        return Aside(output, packing=packing), Aside(failures), Aside(manifest, sweeps_late=True)
    locations = Location(output), Location(failures), Location(manifest)
    storage_of(locations[0]).abort_unfinished(locations)
    return FileToUpload(locations[0], packing=packing), FileToUpload(locations[1]), FileToUpload(locations[2])


class FileDelivery:
    """The files of one delivery while they are being written."""

    def __init__(
        self, output: OutputFile, failures: OutputFile, manifest: OutputFile, writer: RecordWriter, *, overwrite: bool
    ) -> None:
        self._output = output
        self._failures = failures
        self._manifest = manifest
        self._writer = writer
        self._overwrite = overwrite
        self._there = {file.path for file in (output, failures, manifest) if exists(file.path)}

    def complete(self, records: Sequence[Mapping[str, object]]) -> None:
        """Write completed items."""
        with writing(self._output.path):
            self._writer.write(records)
            self._output.records += len(records)

    def discard(self, records: Sequence[Mapping[str, object]]) -> None:
        """Write discarded items."""
        with writing(self._failures.path):
            self._failures.write(self._writer.failures(records))
            self._failures.records += len(records)

    def seal(self, manifest: Mapping[str, object]) -> Mapping[str, object]:
        """Put output, failures and manifest in place once all three are on disk. Return the manifest.

        If nothing was completed, an existing output of the job that has records is kept, and the manifest says which
        run it is from. If there are fewer records than in the job's output of the same rows, that output is kept under
        its run's name, and the manifest says so. Raises `UsageError` if this would replace a file that no delivery of
        the job has written, or a finished output by an unfinished one. If the same delivery is already in a store,
        nothing is uploaded, and its manifest is returned.
        """
        with writing(self._output.path):
            types = self._writer.finish()
            before = self._before(manifest)
            keeps = not self._output.records and self._failures.records and self._has_records(before)
            written = [] if keeps else [self._output]
            written += [self._failures] if self._failures.records else []
            files = {file.path.name: file.sync() for file in written} | self._still_there(before, written)
            files[self._output.path.name] |= {} if keeps else types
            kept: dict[str, object] = {"kept_from_run": before.made_by} if keeps else {}
            earlier = None if keeps else self._better(before, manifest)
            if earlier is not None:
                about = before.files[self._output.path.name]
                kept["earlier"] = {"run": before.made_by, "file": earlier.name} | about
                files[earlier.name] = about
            changed = [file for file in written if not file.is_in_place(before.files.get(file.path.name))]
            files |= {file.path.name: before.files[file.path.name] for file in written if file not in changed}
            sealed = {**manifest, **kept, "files": files}
            if written and not changed and before.is_same_delivery(sealed):
                return before.manifest
            self._manifest.announce(manifest_bytes(sealed))
            if earlier is not None and not exists(earlier):
                self._output.keep_also_as(earlier)
            for file in changed:
                files[file.path.name] |= file.put_in_place()
            if not self._failures.records:
                delete(self._failures.path)
            self._manifest.publish(manifest_bytes(sealed))
        return sealed

    def _better(self, before: ExistingOutput, manifest: Mapping[str, object]) -> Target | None:
        """Return where to keep the existing output if it has more of the same rows than this one."""
        path = self._output.path
        fewer = self._output.records < before.records(path.name)
        if not (fewer and exists(path) and before.is_of_the_same_rows(manifest)):
            return None
        names = (kept_as(path, f"{before.made_by}{more}") for more in chain([""], (f"-{copy}" for copy in count(2))))
        return next(name for name in names if not exists(name) or sha256_of(name) == sha256_of(path))

    def _has_records(self, before: ExistingOutput) -> bool:
        return before.records(self._output.path.name) > 0 and exists(self._output.path)

    def _before(self, manifest: Mapping[str, object]) -> ExistingOutput:
        """Return what the job has delivered here before, after checking again what may not be replaced."""
        job, path = manifest.get("job"), self._manifest.path
        before = standing(path)
        if not self._overwrite:
            files = self._output.path, self._failures.path, path
            if appeared := [file for file in files if file not in self._there and exists(file)]:
                check_own([file for file in appeared if file != path], path, job)
            if before.finished and self._has_records(before) and manifest.get("finished") is False:
                raise UsageError(
                    f"{self._output.path} is the finished output of run {before.run}, and this one is not finished: "
                    "choose another path, or replace it with `--overwrite`"
                )
        return before if before.job == job else ExistingOutput()

    def _still_there(self, before: ExistingOutput, written: Sequence[OutputFile]) -> dict[str, dict[str, object]]:
        """Return the other entries of the previous manifest: files with the same stem in another format stay known."""
        gone = {file.path.name for file in written} | {self._failures.path.name}
        path = self._output.path
        others = {name: about for name, about in before.files.items() if name not in gone}
        return {name: about for name, about in others.items() if exists(beside(path, name))}


def output_columns(keep: Iterable[str]) -> list[str]:
    """Return the columns of an output in their order."""
    return ["id", *(name for name in keep if name != "id"), "output"]


def manifest_bytes(manifest: Mapping[str, object]) -> bytes:
    """Return a manifest as it is written."""
    return exact_json.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def json_lines(records: Iterable[Mapping[str, object]]) -> bytes:
    """Return one line of UTF-8 JSON for each record."""
    lines = (
        bytearray()
    )  # a list of them would take several times as long, because each has a kilobyte until it is joined
    for record in records:
        lines += _line(record)
    return bytes(lines)


def _line(record: Mapping[str, object]) -> bytes:
    try:
        return exact_json.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # nested deeper than orjson writes once the record is around it: old ledgers may hold such values
        return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
