"""Which sink a path asks for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.domain.errors import UsageError
from orchestrator.sinks.csv import CsvSink
from orchestrator.sinks.jsonl import JsonlSink
from orchestrator.sinks.parquet import ParquetSink

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.sinks.delivery import FileSink

_SINKS: dict[str, type[FileSink]] = {
    ".jsonl": JsonlSink,
    ".ndjson": JsonlSink,
    ".csv": CsvSink,
    ".parquet": ParquetSink,
}


def sink_for(path: str | Path, keep: Iterable[str] = ()) -> FileSink:
    """Return the sink for the path's suffix."""
    try:
        sink = _SINKS[Path(path).suffix.lower()]
    except KeyError:
        raise UsageError(f"{path} has no known suffix: use one of {', '.join(_SINKS)}") from None
    return sink(path, keep)
