"""FLOOR 3: sinks. Where answers go, one file per format."""

from orchestrator.sinks.csv import CsvSink
from orchestrator.sinks.jsonl import JsonlSink
from orchestrator.sinks.parquet import ParquetSink
from orchestrator.sinks.suffix import sink_for

__all__ = ["CsvSink", "JsonlSink", "ParquetSink", "sink_for"]
