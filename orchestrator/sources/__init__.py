"""Sources: where items come from; one file per format."""

from typing import TYPE_CHECKING

from orchestrator.sources.batch_file import BatchFileSource
from orchestrator.sources.csv import CsvSource
from orchestrator.sources.files import FilesSource
from orchestrator.sources.iterable import IterableSource
from orchestrator.sources.jsonl import JsonlSource
from orchestrator.sources.run import RunSource
from orchestrator.sources.text import TextSource
from orchestrator.words import words

if TYPE_CHECKING:
    from orchestrator.sources.arrow import ArrowSource
    from orchestrator.sources.parquet import ParquetSource
    from orchestrator.sources.query import QuerySource

if not TYPE_CHECKING:  # so that a type checker reports names that do not exist
    __getattr__, __dir__ = words(
        __name__,
        {
            "ArrowSource": "orchestrator.sources.arrow",
            "ParquetSource": "orchestrator.sources.parquet",
            "QuerySource": "orchestrator.sources.query",
        },
    )

KINDS = {
    "batch-file": "BatchFileSource",
    "csv": "CsvSource",
    "files": "FilesSource",
    "jsonl": "JsonlSource",
    "parquet": "ParquetSource",
    "query": "QuerySource",
    "run": "RunSource",
    "text": "TextSource",
}  # see orchestrator.kinds

__all__ = [
    "ArrowSource",
    "BatchFileSource",
    "CsvSource",
    "FilesSource",
    "IterableSource",
    "JsonlSource",
    "ParquetSource",
    "QuerySource",
    "RunSource",
    "TextSource",
]
