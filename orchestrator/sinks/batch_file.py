"""Batch files: results in the format of OpenAI, or of Anthropic."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, get_args

from orchestrator import exact_json
from orchestrator.domain.batch_dialects import anthropic_failure, anthropic_result
from orchestrator.domain.batch_output import output_line, refused_line
from orchestrator.domain.errors import UsageError
from orchestrator.sinks.delivery import FileSink, RecordWriter, json_lines

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orchestrator.sinks.output_file import OutputFile

ResultDialect: TypeAlias = Literal["openai", "anthropic"]
Record: TypeAlias = Mapping[str, Any]


class BatchFileWriter(RecordWriter):
    """Writes one line per item, made by the functions of a dialect."""

    def __init__(self, file: OutputFile, columns: Sequence[str], dialect: ResultDialect) -> None:
        super().__init__(file, columns)
        self._result, self._failure = _LINES[dialect]

    def write(self, records: Sequence[Record]) -> None:
        """Add the records. Raises `UsageError` if an output is not the body of a response."""
        self._file.write(b"".join(map(self._result, records)))

    def failures(self, records: Sequence[Record]) -> bytes:
        """Return the lines of discarded items."""
        return b"".join(map(self._failure, records))


@dataclass(frozen=True, slots=True, init=False)
class BatchFileSink(FileSink):
    """Results as a batch service returns them: answers in the output, and failed requests in the failures file.

    Outputs have to be whole bodies of responses, as `OpenAIBatchWire` makes them.
    `dialect`: whose lines, `openai` (also Azure, Groq, Together, Mistral, vLLM and others) or `anthropic`.
    """

    packs: ClassVar[bool] = True

    dialect: ResultDialect

    def __init__(self, path: str | Path, dialect: ResultDialect = "openai", *, overwrite: bool = False) -> None:
        FileSink.__init__(self, path, overwrite=overwrite)
        if dialect not in get_args(ResultDialect):
            raise ValueError(f"dialect must be one of {', '.join(get_args(ResultDialect))}, not {dialect!r}")
        object.__setattr__(self, "dialect", dialect)

    def _writer(self, file: OutputFile, columns: Sequence[str]) -> BatchFileWriter:
        return BatchFileWriter(file, columns, self.dialect)


def _openai_result(record: Record) -> bytes:
    return output_line(_request_id(record), record["id"], exact_json.dumps(_body(record)).decode()).encode()


def _openai_failure(record: Record) -> bytes:
    error = record["error"]
    return refused_line(
        _request_id(record),
        record["id"],
        kind=str(error["kind"]),
        status=error["status"],
        message=str(error["message"]),
        body=None,
    ).encode()


def _anthropic_result(record: Record) -> bytes:
    try:
        return json_lines([anthropic_result(record["id"], _body(record))])
    except ValueError as error:
        raise UsageError(
            f"item {record['id']} {error}: use the dialect openai or JsonlSink; all answers are kept"
        ) from error


def _anthropic_failure(record: Record) -> bytes:
    error = record["error"]
    return json_lines([anthropic_failure(record["id"], error["status"], str(error["message"]))])


_LINES: Mapping[ResultDialect, tuple[Callable[[Record], bytes], Callable[[Record], bytes]]] = {
    "openai": (_openai_result, _openai_failure),
    "anthropic": (_anthropic_result, _anthropic_failure),
}


def _body(record: Record) -> Record:
    output = record["output"]
    if isinstance(output, Mapping):
        return output
    raise UsageError(
        f"item {record['id']}: the output is not the body of a response, which a batch file has: ask with "
        "OpenAIBatchWire and without parse, or use JsonlSink; all answers are kept"
    )


def _request_id(record: Record) -> str:
    """Return an id for the service's own name of a request, which is the same in every delivery."""
    return hashlib.sha256(record["id"].encode()).hexdigest()[:16]
