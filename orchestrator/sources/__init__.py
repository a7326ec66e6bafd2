"""FLOOR 3: sources. Where items come from, one file per format."""

from orchestrator.sources.csv import CsvSource
from orchestrator.sources.files import FilesSource
from orchestrator.sources.iterable import IterableSource
from orchestrator.sources.jsonl import JsonlSource
from orchestrator.sources.parquet import ParquetSource
from orchestrator.sources.text import TextSource

__all__ = ["CsvSource", "FilesSource", "IterableSource", "JsonlSource", "ParquetSource", "TextSource"]
