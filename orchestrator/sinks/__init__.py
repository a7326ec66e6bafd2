"""Sinks: where results go; one file per format."""

from typing import TYPE_CHECKING

from orchestrator.sinks.batch_file import BatchFileSink
from orchestrator.sinks.csv import CsvSink
from orchestrator.sinks.jsonl import JsonlSink
from orchestrator.sinks.suffix import sink_for
from orchestrator.words import words

if TYPE_CHECKING:
    from orchestrator.sinks.hub import HubSink
    from orchestrator.sinks.parquet import ParquetSink

if not TYPE_CHECKING:  # so that a type checker reports names that do not exist
    __getattr__, __dir__ = words(
        __name__, {"HubSink": "orchestrator.sinks.hub", "ParquetSink": "orchestrator.sinks.parquet"}
    )

KINDS = {
    "batch-file": "BatchFileSink",
    "csv": "CsvSink",
    "hub": "HubSink",
    "jsonl": "JsonlSink",
    "parquet": "ParquetSink",
}  # see orchestrator.kinds

__all__ = ["BatchFileSink", "CsvSink", "HubSink", "JsonlSink", "ParquetSink", "sink_for"]
