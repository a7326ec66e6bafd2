"""The guarantees of every source, over datasets and buckets on the Hugging Face Hub."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.testing import SourceConformance
from tests.doors.test_sources import as_csv, jsonl, parquet, text_lines

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orchestrator import ports
    from tests.hub_server import FakeHub


class InADataset(SourceConformance):
    @pytest.fixture(autouse=True)
    def service(self, hub: FakeHub) -> None:
        self.hub = hub
        hub.add("acme/in")

    def moved(self, source: Any, folder: Path) -> ports.Source:
        self.hub.push("acme/in", {f"{folder.name}/in": source.path.read_bytes()})
        return replace(source, path=f"hf://datasets/acme/in/{folder.name}/in")  # type: ignore[no-any-return]


class TestJsonlSource(InADataset):
    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        return self.moved(jsonl(folder / "in", texts), folder)


class TestCsvSource(InADataset):
    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        return self.moved(as_csv(folder / "in", texts), folder)


class TestParquetSource(InADataset):
    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        return self.moved(parquet(folder / "in", texts), folder)


class TestTextSource(InADataset):
    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        return self.moved(text_lines(folder / "in", texts), folder)


class TestParquetSourceInABucket(SourceConformance):
    @pytest.fixture(autouse=True)
    def service(self, hub: FakeHub) -> None:
        self.bucket = hub.add_bucket("acme/scratch")

    def source(self, folder: Path, texts: Sequence[str]) -> ports.Source:
        source: Any = parquet(folder / "in", texts)
        self.bucket.files[f"{folder.name}/in"] = (folder / "in").read_bytes()
        return replace(source, path=f"hf://buckets/acme/scratch/{folder.name}/in")  # type: ignore[no-any-return]
