"""The guarantees of every sink, over datasets and buckets on the Hugging Face Hub."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, cast

import orjson
import pyarrow.parquet as pq
import pytest

from orchestrator.domain.errors import UsageError
from orchestrator.domain.location import Location
from orchestrator.sinks import CsvSink, HubSink, JsonlSink, ParquetSink
from orchestrator.sinks.suffix import sink_for
from orchestrator.sources import CsvSource
from orchestrator.testing import SinkConformance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from orchestrator import ports
    from tests.hub_server import FakeHub

    Record = Mapping[str, object]

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the client's own requests
_END = "-00000-of-00001.parquet"


class OnTheHub(SinkConformance):
    """A folder on the Hub stands for the folder of the suite."""

    folder: str

    @pytest.fixture(autouse=True)
    def service(self, hub: FakeHub) -> None:
        self.hub = hub

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return cast("Path", Location(f"hf://{self.folder}{self.name}"))

    def files(self) -> Mapping[str, bytes]:
        raise NotImplementedError

    def names(self, path: Path) -> set[str]:
        return set(self.contents(path))

    def contents(self, path: Path) -> dict[str, bytes]:
        found = self.files().items()
        return {name.removeprefix("data/"): content for name, content in found if name.startswith("data/")}


class TestHubSink(OnTheHub):
    name = f"out{_END}"
    folder = "datasets/acme/reviews/data/"

    def files(self) -> Mapping[str, bytes]:
        repo = self.hub.repos.get(("dataset", "acme/reviews"))
        return {} if repo is None else repo.files

    def sink(self, path: Path, keep: Sequence[str]) -> ports.Sink:
        return HubSink("acme/reviews", keep, split=self.split(path))

    def read(self, path: Path) -> list[Record]:
        rows: list[Record] = pq.read_table(io.BytesIO(self.files()[f"data/{self.split(path)}{_END}"])).to_pylist()
        return rows

    def split(self, path: Path) -> str:
        return path.name.removesuffix(_END).replace("-", "_")


class InABucket(OnTheHub):
    folder = "buckets/acme/scratch/data/"

    @pytest.fixture(autouse=True)
    def bucket(self, service: None) -> None:
        self.hub.add_bucket("acme/scratch")

    def files(self) -> Mapping[str, bytes]:
        return self.hub.buckets["acme/scratch"].files

    def sink(self, path: Path, keep: Sequence[str]) -> ports.Sink:
        return sink_for(path, keep)

    def content(self, path: Path) -> bytes:
        return self.files()[f"data/{path.name}"]


class TestJsonlSinkInABucket(InABucket):
    def read(self, path: Path) -> list[Record]:
        return [orjson.loads(line) for line in self.content(path).splitlines()]


class TestCsvSinkInABucket(InABucket):
    name = "out.csv"

    def read(self, path: Path) -> list[Record]:
        with CsvSource(str(path), id="id").rows() as rows:
            return [row.columns for row in rows]


class TestParquetSinkInABucket(InABucket):
    name = "out.parquet"

    def read(self, path: Path) -> list[Record]:
        rows: list[Record] = pq.read_table(io.BytesIO(self.content(path))).to_pylist()
        return rows


@pytest.mark.parametrize("kind", [JsonlSink, CsvSink, ParquetSink])
def test_a_sink_of_files_refuses_a_repo_and_names_hubsink(
    hub: FakeHub, kind: type[JsonlSink | CsvSink | ParquetSink]
) -> None:
    hub.add("acme/x")
    with pytest.raises(UsageError, match=r"where each file would be a commit: use HubSink\('acme/x'\)"):
        kind("hf://datasets/acme/x/out.parquet").check("job")
    assert len(hub.dataset("acme/x").commits) == 1
