"""The sink for a path's suffix."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.domain.errors import UsageError
from orchestrator.domain.file_names import packing_of, unpacked
from orchestrator.domain.location import target_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.sinks.delivery import FileSink

_SINKS = {".jsonl": "JsonlSink", ".ndjson": "JsonlSink", ".csv": "CsvSink", ".parquet": "ParquetSink"}


def sink_for(path: str | Path, keep: Iterable[str] = (), *, overwrite: bool = False) -> FileSink:
    """Return the sink for the path's suffix."""
    name = target_of(path).name  # a URL that is not supported is reported as such, whatever its suffix
    if word := _SINKS.get(Path(unpacked(name)).suffix.lower()):
        sink: type[FileSink] = getattr(import_module("orchestrator.sinks"), word)
        if sink.packs or packing_of(name) is None:
            return sink(path, keep, overwrite=overwrite)
    raise UsageError(f"{path} has no known suffix: use one of {', '.join(_SINKS)}")
