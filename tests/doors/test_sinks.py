"""The guarantees of every sink, then those of each format."""

from __future__ import annotations

import bz2
import csv
import gzip
import hashlib
import lzma
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import orchestrator
from orchestrator import ports
from orchestrator.domain.errors import UsageError
from orchestrator.domain.file_names import unpacked
from orchestrator.sinks import CsvSink, JsonlSink, ParquetSink, sink_for
from orchestrator.sinks.shape import MAX_FIELDS
from orchestrator.sources import CsvSource, JsonlSource, ParquetSource
from orchestrator.testing import SinkConformance
from orchestrator.testing.assertions import assert_one_line
from orchestrator.testing.sinks import FAILURE, answers, contents, deliver, names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Record = Mapping[str, object]

SUFFIXES = ["jsonl", "csv", "parquet"]
SOURCES = {".jsonl": JsonlSource, ".csv": CsvSource, ".parquet": ParquetSource}


@pytest.fixture(params=SUFFIXES)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / f"out.{request.param}"


@pytest.fixture
def nobody() -> Iterator[None]:
    """Drop all privileges for the block if the tests run as root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


def read(path: Path) -> list[dict[str, object]]:
    with SOURCES[Path(unpacked(path.name)).suffix](path, id="id").rows() as rows:
        return [dict(row.columns) for row in rows]


def outputs(path: Path) -> list[object]:
    return [record["output"] for record in read(path)]


# -- every kind -------------------------------------------------------------------------------------------------------


class OurSink(SinkConformance):
    def sink(self, path: Path, keep: Sequence[str]) -> ports.Sink:
        return sink_for(path, keep)

    def read(self, path: Path) -> list[Record]:
        return list(read(path))


class TestJsonlSink(OurSink):
    name = "out.jsonl"


class TestJsonlSinkWithGzip(OurSink):
    name = "out.jsonl.gz"


class TestCsvSink(OurSink):
    name = "out.csv"


class TestCsvSinkWithZstandard(OurSink):
    name = "out.csv.zst"


class TestParquetSink(OurSink):
    name = "out.parquet"


# -- files that cannot be written -------------------------------------------------------------------------------------


def test_a_folder_without_write_permission_is_refused(path: Path, request: pytest.FixtureRequest) -> None:
    path.parent.chmod(0o555)
    request.getfixturevalue("nobody")
    with pytest.raises(UsageError) as failure, sink_for(path, ()).open():
        pass
    assert_one_line(failure, path, "permission")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("size", [400, 100_000])
def test_a_full_disk_is_an_error_and_keeps_the_old_files(small_disk: Path, suffix: str, size: int) -> None:
    path = small_disk / f"out.{suffix}"
    deliver(sink_for(path, ()), answers("old"), failures=[FAILURE])
    before = contents(small_disk)
    with pytest.raises(UsageError) as failure:
        deliver(sink_for(path, ()), *(answers(os.urandom(size).hex()) for _ in range(1_500_000 // size)))
    assert_one_line(failure, path, "free some space")
    assert contents(small_disk) == before


@pytest.mark.parametrize("limit", [10, 3_000, 50_000])
def test_a_write_failure_at_any_point_keeps_the_old_files(path: Path, limit: int) -> None:
    sink = sink_for(path, ())
    deliver(sink, answers("old"), failures=[FAILURE])
    before = contents(path.parent)
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    try:
        with pytest.raises(UsageError) as failure:
            deliver(sink, answers(os.urandom(40_000).hex()), answers("b"), failures=[FAILURE])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert_one_line(failure, path.parent)
    assert contents(path.parent) == before


# -- choosing a sink --------------------------------------------------------------------------------------------------


def test_the_suffix_chooses_the_sink() -> None:
    kinds = {
        "a.jsonl": JsonlSink,
        "a.NDJSON": JsonlSink,
        "a.jsonl.GZ": JsonlSink,
        "a.csv": CsvSink,
        "b/a.b.parquet": ParquetSink,
    }
    for name, kind in kinds.items():
        sink = sink_for(name, ["x", "y"])
        assert sink == kind(Path(name).absolute(), keep=("x", "y"))
        assert hash(sink) == hash(kind(name, keep=["x", "y"]))


@pytest.mark.parametrize("name", ["a", "a.txt", "a.gz", "a.parquet.gz"])
def test_an_unknown_suffix_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(UsageError) as failure:
        sink_for(name, ())
    assert_one_line(failure, name, ".jsonl, .ndjson, .csv, .parquet")


@pytest.mark.parametrize("name", ["a.parquet.gz", "s3://bucket/a.parquet.zst"])
def test_a_parquet_file_is_not_named_as_if_it_were_compressed(name: str) -> None:
    with pytest.raises(UsageError) as failure:
        ParquetSink(name)
    assert_one_line(failure, name, f"leave out {Path(name).suffix}")


@pytest.mark.parametrize("keep", ["text", ["output"], ["error"], ["attempts"]])
def test_columns_that_cannot_be_kept_are_refused(keep: str | list[str]) -> None:
    with pytest.raises(UsageError) as failure:
        JsonlSink("out.jsonl", keep)
    assert_one_line(failure)


# -- formats ----------------------------------------------------------------------------------------------------------


def test_jsonl_keeps_non_ascii_characters(tmp_path: Path) -> None:
    deliver(JsonlSink(tmp_path / "out.jsonl"), answers("é"))
    assert (tmp_path / "out.jsonl").read_bytes() == '{"id":"0","output":"é"}\n'.encode()


def test_csv_writes_scalars_plainly_and_the_rest_as_json(tmp_path: Path) -> None:
    given: list[object] = [None, True, False, 7, 0.5, "=1", {"a": ["é", None]}, []]
    deliver(CsvSink(tmp_path / "out.csv"), answers(*given))
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        cells = [row["output"] for row in csv.DictReader(file)]
    assert cells == ["", "true", "false", "7", "0.5", "=1", '{"a":["é",null]}', "[]"]


def table(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_csv_makes_columns_if_all_outputs_are_flat_objects(tmp_path: Path) -> None:
    sink = CsvSink(tmp_path / "out.csv", keep=["k"], escape_formulas=True)
    first = {"id": 1, "k": "x", "output": {"label": "=a", "score": 0.5}}
    last = {"id": 3, "output": {"score": True, "more": None, "=b": ""}}
    deliver(sink, [first], [{"id": 2, "output": {}}], [last])
    assert table(tmp_path / "out.csv") == [
        ["id", "k", "label", "score", "more", "'=b"],
        ["1", "x", "'=a", "0.5", "", ""],
        ["2", "", "", "", "", ""],
        ["3", "", "", "true", "", ""],
    ]


@pytest.mark.parametrize(
    "outputs",
    [
        [{"a": 1}, "text"],
        [{"a": 1}, None],
        [{"a": 1}, {"a": [1]}],
        [{"a": 1}, {"a": {}}],
        [{"a": 1}, {"id": 1}],
        [{"k": 1}],
        [{"output": 1}],
        [{}],
        [{str(number): number for number in range(257)}],
    ],
)
def test_csv_keeps_one_column_if_outputs_have_no_columns_of_their_own(outputs: list[object], tmp_path: Path) -> None:
    deliver(CsvSink(tmp_path / "out.csv", keep=["k"]), *([record] for record in answers(*outputs)))
    header, *rows_ = table(tmp_path / "out.csv")
    assert header == ["id", "k", "output"]
    assert [row[2] for row in rows_] == [
        "" if output is None else output if isinstance(output, str) else orjson.dumps(output).decode()
        for output in outputs
    ]


def test_csv_escapes_spreadsheet_formulas_if_told(tmp_path: Path) -> None:
    given = ["=1+1", "+1", "-1", "@a", "\t=1", "\r", " =1", "\uff1d1", "a=1", "1-1", "", "'", -1, [-1], None]
    sink = CsvSink(tmp_path / "out.csv", ["=kept"], escape_formulas=True)
    deliver(sink.for_run({}), [{"id": "-1", "=kept": "@", "output": output} for output in given])
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["id", "'=kept", "output"]
    assert {tuple(row[:2]) for row in rows} == {("'-1", "'@")}
    escaped = ["'=1+1", "'+1", "'-1", "'@a", "'\t=1", "'\r", "' =1", "'\uff1d1"]
    assert [row[2] for row in rows] == [*escaped, "a=1", "1-1", "", "'", "-1", "[-1]", ""]


NESTED = pa.struct([("a", pa.float64()), ("b", pa.list_(pa.struct([("c", pa.string())])))])
PARQUET_TYPES: list[tuple[list[list[object]], pa.DataType]] = [
    ([[1], [2**62]], pa.int64()),
    ([[1], [2**63]], pa.uint64()),
    ([[1], [0.5, None]], pa.float64()),
    ([[None], [True]], pa.bool_()),
    ([[None, None], [[]], [[0.5, 1]]], pa.list_(pa.float64())),
    ([[{"a": 1, "b": [{"c": None}]}], [None, {"a": 0.5, "b": None}]], NESTED),
    ([[{"a": 1}], [{"b": None}]], pa.string()),
    ([[{"a": 1, "b": 2}], [{"b": 2, "a": 1}]], pa.string()),
    ([[{"a": [{"b": {}}]}], [{"a": [{"b": {"c": None}}]}]], pa.string()),
    ([[[{"a": 1}, {}]]], pa.string()),
    ([[{"a": 1}], [{}]], pa.string()),
    ([[{"a": 1}], [{"a": "x"}]], pa.string()),
    ([["x"], [["x"]]], pa.string()),
    ([[True], [1]], pa.string()),
    ([[True], [0.5]], pa.string()),
    ([[2**53 + 1], [0.5]], pa.string()),
    ([[-1], [2**63]], pa.string()),
    ([[{}], [{}]], pa.string()),
    ([[{str(n): 1 for n in range(MAX_FIELDS + 1)}]], pa.string()),
    ([[None]], pa.string()),
]


@pytest.mark.parametrize(("batches", "kind"), PARQUET_TYPES)
def test_parquet_types_are_inferred_from_all_batches(
    batches: list[list[object]], kind: pa.DataType, tmp_path: Path
) -> None:
    path = tmp_path / "out.parquet"
    deliver(ParquetSink(path), *(answers(*batch) for batch in batches))
    assert pq.read_schema(path).field("output").type == kind
    assert_kept([value for batch in batches for value in batch], outputs(path))


def as_written(value: object) -> object:
    """Return a value to compare with what was read back: the order of keys matters."""
    if isinstance(value, dict):
        return [(name, as_written(item)) for name, item in value.items()]
    return [as_written(item) for item in value] if isinstance(value, list) else value


def assert_kept(given: list[object], back: list[object]) -> None:
    if as_written(back) != as_written(given):
        decoded = [None if value is None else orjson.loads(str(value)) for value in back]
        assert as_written(decoded) == as_written(given)


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
columns = st.lists(values | numbers, max_size=6) | st.lists(numbers, max_size=6) | st.lists(st.lists(numbers))


@settings(max_examples=150)
@given(columns)
def test_any_json_survives_a_round_trip_through_jsonl(given: list[object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        deliver(JsonlSink(f"{folder}/out.jsonl"), answers(*given))
        assert outputs(Path(folder, "out.jsonl")) == given


@settings(max_examples=150)
@given(columns, st.integers(0, 6))
def test_any_json_survives_a_round_trip_through_parquet(given: list[object], cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        records = answers(*given)
        deliver(ParquetSink(f"{folder}/out.parquet"), records[:cut], records[cut:])
        assert_kept(given, outputs(Path(folder, "out.parquet")))


@settings(max_examples=100)
@given(st.lists(text))
def test_any_text_survives_a_round_trip_through_csv(given: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        deliver(CsvSink(f"{folder}/out.csv"), answers(*given))
        assert outputs(Path(folder, "out.csv")) == given


# -- placeholders -----------------------------------------------------------------------------------------------------


def test_each_run_has_its_own_files(path: Path) -> None:
    template = sink_for(path.with_name(f"{{job}}-{{date}}-{{run}}{path.suffix}"), keep=["n"])
    for run in ("7", "8"):
        sink = template.for_run({"run": run, "date": "2026-11-21", "job": "talk"})
        assert sink.keep == template.keep
        with sink.open() as delivery:
            delivery.complete([{"id": run, "output": run}])
            delivery.discard([FAILURE])
            delivery.seal({"run": run})
    stems = [f"talk-2026-11-21-{run}" for run in ("7", "8")]
    names = [f"{stem}{suffix}" for stem in stems for suffix in (".failures.jsonl", path.suffix, ".manifest.json")]
    assert sorted(file.name for file in path.parent.iterdir()) == sorted(names)
    manifest = orjson.loads((path.parent / f"{stems[1]}.manifest.json").read_bytes())
    assert sorted(manifest["files"]) == sorted(names[3:5])


@pytest.mark.parametrize("name", ["{day}.jsonl", "{}.jsonl", "{run:03}.jsonl", "{run.jsonl"])
def test_an_unknown_placeholder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"^[^\n]*write a literal brace twice$"):
        JsonlSink(tmp_path / name)


def test_braces_in_the_current_folder_are_not_placeholders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "{odd}"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert JsonlSink("{run}.jsonl").for_run({"run": "7"}).path == folder / "7.jsonl"


# -- existing files ---------------------------------------------------------------------------------------------------


def manifest_of(job: str, run: int = 1, *, finished: bool = True) -> dict[str, object]:
    return {"job": job, "run": run, "finished": finished}


def deliver_as(
    sink: ports.Sink, job: str, *outputs: object, failures: Sequence[Record] = (), run: int = 1, finished: bool = True
) -> None:
    """Deliver as the engine does."""
    assert isinstance(sink, ports.WritesFiles)
    sink.check(job)
    with sink.open() as delivery:
        delivery.complete(answers(*outputs))
        delivery.discard(failures)
        delivery.seal(manifest_of(job, run, finished=finished))


def manifest(path: Path) -> dict[str, object]:
    found: dict[str, object] = orjson.loads(path.with_name("out.manifest.json").read_bytes())
    return found


def test_a_job_replaces_its_own_files(path: Path) -> None:
    deliver_as(sink_for(path), "talk", "a", failures=[FAILURE])
    deliver_as(sink_for(path), "talk", "b", run=2)
    assert outputs(path) == ["b"]
    assert names(path.parent) == {"out.manifest.json", path.name}


def test_an_output_that_is_a_link_stays_one_and_the_file_that_it_leads_to_is_written(path: Path) -> None:
    elsewhere = path.parent / "elsewhere"
    elsewhere.mkdir()
    place = elsewhere / f"real{path.suffix}"
    path.symlink_to(place)
    deliver_as(sink_for(path), "talk", "a", "b", run=1)
    assert (path.is_symlink(), outputs(place)) == (True, ["a", "b"])
    deliver_as(sink_for(path), "talk", "c", run=2)
    assert (path.is_symlink(), outputs(place)) == (True, ["c"])
    assert outputs(path.with_stem("out.run-1")) == ["a", "b"]
    assert names(elsewhere) == {place.name}
    place.write_text("somebody's")
    with pytest.raises(UsageError, match="was changed since"):
        deliver_as(sink_for(path), "talk", "d", run=3)


def test_a_link_into_a_missing_folder_is_refused(path: Path) -> None:
    path.symlink_to(path.parent / "gone" / "out")
    with pytest.raises(UsageError, match="whose folder does not exist"):
        sink_for(path).check("talk")


@pytest.mark.parametrize("taken", ["{}", "out.failures.jsonl", "out.manifest.json"])
def test_a_file_of_another_origin_is_refused_and_replaced_only_when_told(path: Path, taken: str) -> None:
    file = path.parent / taken.format(path.name)
    file.write_text("somebody's")
    with pytest.raises(UsageError) as failure:
        deliver_as(sink_for(path), "talk", "a")
    assert_one_line(failure, file, "overwrite=True", "--overwrite")
    assert contents(path.parent) == {file.name: b"somebody's"}
    deliver_as(sink_for(path, overwrite=True), "talk", "a")
    deliver_as(sink_for(path), "talk", "b")
    assert outputs(path) == ["b"]


def test_the_output_of_another_job_is_refused_by_name(path: Path) -> None:
    deliver_as(sink_for(path), "first", "a")
    before = contents(path.parent)
    for suffix in SUFFIXES:  # the manifest has the same name in every format
        with pytest.raises(UsageError) as failure:
            deliver_as(sink_for(path.with_suffix(f".{suffix}")), "second", "b")
        assert_one_line(failure, path.with_name("out.manifest.json"), "job 'first'")
    assert contents(path.parent) == before


def test_a_file_that_the_manifest_beside_it_does_not_name_is_refused(tmp_path: Path) -> None:
    deliver_as(JsonlSink(tmp_path / "out.jsonl"), "talk", "a")
    (tmp_path / "out.csv").write_text("a table of the user's")
    with pytest.raises(UsageError, match=r"out\.csv is a file that no delivery of job 'talk' has written"):
        deliver_as(CsvSink(tmp_path / "out.csv"), "talk", "a")
    (tmp_path / "out.failures.jsonl").write_text("lines of the user's")
    with pytest.raises(UsageError, match=r"out\.failures\.jsonl is a file that no delivery"):
        deliver_as(JsonlSink(tmp_path / "out.jsonl"), "talk", "b")
    assert outputs(tmp_path / "out.jsonl") == ["a"]


def test_outputs_of_one_job_in_several_formats_are_recognized(tmp_path: Path) -> None:
    for _ in range(2):
        for suffix in SUFFIXES:
            deliver_as(sink_for(tmp_path / f"out.{suffix}"), "talk", "a")
    files = manifest(tmp_path / "out.jsonl")["files"]
    assert isinstance(files, dict)
    assert files.keys() == {f"out.{suffix}" for suffix in SUFFIXES}
    assert files["out.csv"]["sha256"] == hashlib.sha256((tmp_path / "out.csv").read_bytes()).hexdigest()


@pytest.mark.parametrize("appears", ["{}", "out.failures.jsonl", "out.manifest.json"])
def test_a_file_that_appears_during_a_delivery_is_not_replaced(path: Path, appears: str) -> None:
    file = path.parent / appears.format(path.name)
    with sink_for(path).open() as delivery:
        delivery.complete(answers("a"))
        file.write_text("somebody's")
        with pytest.raises(UsageError) as failure:
            delivery.seal(manifest_of("talk"))
    assert_one_line(failure, file)
    assert contents(path.parent) == {file.name: b"somebody's"}


KILLED_IN_BETWEEN = """
import sys
from orchestrator.sinks import sink_for
with sink_for(sys.argv[1]).open() as delivery:
    delivery.complete([{"id": "1", "output": "whole"}])
    delivery.discard([{"id": "2"}])
    delivery.seal({"job": "talk", "run": 1, "finished": True})
"""


def test_files_placed_by_a_killed_delivery_belong_to_its_job_alone(
    path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    failpoints = tmp_path_factory.mktemp("failpoints")
    (failpoints / "after rename").touch()
    environment = {**os.environ, "PYTHONPATH": str(Path(orchestrator.__path__[0]).parent)}
    environment["ORCHESTRATOR_FAILPOINTS"] = str(failpoints)
    killed = subprocess.run([sys.executable, "-c", KILLED_IN_BETWEEN, str(path)], env=environment, check=False)
    assert killed.returncode < 0
    assert path.exists()
    assert not path.with_name("out.manifest.json").exists()
    with pytest.raises(UsageError):
        deliver_as(sink_for(path), "other", "b")
    with sink_for(path).open():
        pass  # a delivery that is given up removes no proof
    deliver_as(sink_for(path), "talk", "again")
    assert outputs(path) == ["again"]
    assert names(path.parent) == {"out.manifest.json", path.name}


def test_files_placed_by_a_failed_delivery_belong_to_its_job(path: Path) -> None:
    failures = path.with_name("out.failures.jsonl")
    with sink_for(path).open() as delivery:
        delivery.complete(answers("a"))
        delivery.discard([FAILURE])
        failures.mkdir()  # so that the second file cannot be put in place
        with pytest.raises(UsageError):
            delivery.seal(manifest_of("talk"))
    failures.rmdir()
    deliver_as(sink_for(path), "talk", "again")
    assert outputs(path) == ["again"]
    assert names(path.parent) == {"out.manifest.json", path.name}


def test_an_output_with_records_is_kept_if_nothing_was_completed(path: Path) -> None:
    deliver_as(sink_for(path), "talk", "a", "b", run=3)
    kept = path.read_bytes()
    for run in (4, 5):
        deliver_as(sink_for(path), "talk", failures=[FAILURE], run=run)
        assert path.read_bytes() == kept
        assert len(read(path.with_name("out.failures.jsonl"))) == 1
        found = manifest(path)
        assert (found["run"], found["kept_from_run"]) == (run, 3)
        assert isinstance(found["files"], dict)
        assert found["files"][path.name]["sha256"] == hashlib.sha256(kept).hexdigest()
    path.rename(path.with_name("taken"))
    deliver_as(sink_for(path), "talk", failures=[FAILURE], run=5)  # there is nothing to keep
    assert outputs(path) == []
    deliver_as(sink_for(path), "talk", "a")
    deliver_as(sink_for(path), "talk", run=6)  # no rows at all: an empty source was allowed
    assert outputs(path) == []
    assert "kept_from_run" not in manifest(path)


def test_an_output_with_more_of_the_same_rows_is_kept_under_the_name_of_its_run(path: Path) -> None:
    deliver_as(sink_for(path), "talk", "a", "b", "c", run=1)
    best = path.read_bytes()
    deliver_as(sink_for(path), "talk", "d", "e", failures=[FAILURE], run=2)
    deliver_as(sink_for(path), "talk", "f", failures=[FAILURE], run=3)
    assert outputs(path) == ["f"]
    assert path.with_stem("out.run-1").read_bytes() == best
    assert outputs(path.with_stem("out.run-2")) == ["d", "e"]
    files = manifest(path)["files"]
    assert isinstance(files, dict)
    about = {"sha256": hashlib.sha256(best).hexdigest(), "bytes": len(best), "records": 3}
    assert files[f"out.run-1{path.suffix}"].items() >= about.items()
    deliver_as(sink_for(path), "talk", "a", "b", "c", run=1)
    assert len(names(path.parent)) == 4
    path.with_stem("out.run-1").write_text("of another ledger's run 1")
    deliver_as(sink_for(path, overwrite=True), "talk", "a", run=2)
    assert path.with_stem("out.run-1").read_text() == "of another ledger's run 1"
    assert path.with_stem("out.run-1-2").read_bytes() == best


@pytest.mark.parametrize(
    ("suffix", "unpack"),
    [
        ("jsonl.gz", gzip.decompress),
        ("csv.GZ", gzip.decompress),
        ("jsonl.bz2", bz2.decompress),
        ("csv.xz", lzma.decompress),
        ("jsonl.zst", lambda data: pa.CompressedInputStream(pa.BufferReader(data), "zstd").read()),
    ],
)
def test_a_compressed_output_holds_what_the_plain_one_does_and_is_the_same_each_time(
    suffix: str, unpack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    path, plain = tmp_path / f"out.{suffix}", tmp_path / f"plain.{suffix.partition('.')[0]}"
    for one in (plain, path):
        deliver_as(sink_for(one), "talk", *(f"text {number}" for number in range(2_000)), run=1)
    written = path.read_bytes()
    assert unpack(written) == plain.read_bytes()
    assert len(written) < len(plain.read_bytes()) / 2
    about = {"sha256": hashlib.sha256(written).hexdigest(), "bytes": len(written), "records": 2_000}
    assert manifest(path)["files"] == {path.name: about}
    path.unlink()
    deliver_as(sink_for(path), "talk", *(f"text {number}" for number in range(2_000)), run=1)
    assert path.read_bytes() == written
    deliver_as(sink_for(path), "talk", "a", failures=[FAILURE], run=2)
    assert names(tmp_path) - {plain.name, "plain.manifest.json"} == {
        path.name,
        f"out.run-1.{suffix}",
        "out.failures.jsonl",
        "out.manifest.json",
    }
    assert sink_for(path).for_part("talk", 1, {}).path.name == f"out.first-1.{suffix}"


def test_an_output_with_other_rows_is_replaced(path: Path) -> None:
    for records, read in ((["a", "b"], "sha of monday"), (["c"], "sha of tuesday")):
        with sink_for(path).open() as delivery:
            delivery.complete(answers(*records))
            delivery.seal(manifest_of("talk") | {"input": {"sha256": read}})
    assert names(path.parent) == {path.name, "out.manifest.json"}


def test_an_output_is_kept_on_a_disk_without_hard_links(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver_as(sink_for(path), "talk", "a", "b", run=1)

    def unsupported(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", unsupported)
    deliver_as(sink_for(path), "talk", "c", run=2)
    assert (outputs(path), outputs(path.with_stem("out.run-1"))) == (["c"], ["a", "b"])


def test_a_partial_delivery_does_not_replace_a_finished_one(path: Path) -> None:
    deliver_as(sink_for(path), "talk", "a", finished=False)
    deliver_as(sink_for(path), "talk", "a", "b", finished=False)
    deliver_as(sink_for(path), "talk", "a", "b", "c", run=7)
    with pytest.raises(UsageError) as failure:
        deliver_as(sink_for(path), "talk", "a", finished=False, run=8)
    assert_one_line(failure, path, "run 7", "--overwrite")
    assert len(outputs(path)) == 3
    deliver_as(sink_for(path, overwrite=True), "talk", "a", finished=False)
    assert len(outputs(path)) == 1


@pytest.mark.parametrize("text", ["", "[]", '{"job":"talk"}', '{"job":"talk","files":[]}', "{", "\xff"])
def test_an_invalid_manifest_belongs_to_no_job(path: Path, text: str) -> None:
    path.write_text("somebody's")
    path.with_name("out.manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match="overwrite"):
        deliver_as(sink_for(path), "talk", "a")
    assert path.read_text() == "somebody's"


def test_a_sink_names_every_file_that_it_writes(path: Path) -> None:
    sink = sink_for(path)
    assert isinstance(sink, ports.WritesFiles)
    named = [path, path.with_name("out.failures.jsonl"), path.with_name("out.manifest.json")]
    assert [*sink.writes()[:3]] == named
    assert all(aside.name.startswith(f".{file.name}.") for aside, file in zip(sink.writes()[3:], named, strict=True))


def test_a_name_that_leaves_no_room_for_temporary_names_is_refused(tmp_path: Path) -> None:
    for length in (228, 300):
        with pytest.raises(
            UsageError, match=r"x\.jsonl cannot be written \(File name too long\): choose another path$"
        ):
            JsonlSink(tmp_path / f"{length * 'x'}.jsonl").writes((123,))
    assert JsonlSink(tmp_path / f"{200 * 'x'}.jsonl").writes((123,))


@pytest.mark.parametrize("path", ["out/", "s3://bucket/out/"])
def test_a_folder_as_an_output_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match=f"^{path} is a folder, .*: give its path, such as {path}out.jsonl$"):
        JsonlSink(path)


@pytest.mark.parametrize("path", ["ftp://host/out.jsonl", Path("hdfs://a/b.parquet"), "file:///out.csv"])
def test_a_scheme_is_refused_by_name_in_every_sink(path: str | Path) -> None:
    for kind in (sink_for, JsonlSink, CsvSink, ParquetSink):
        with pytest.raises(UsageError, match=r"^(ftp|hdfs|file):// is not supported .*: give a path on this machine$"):
            kind(path)


@pytest.mark.parametrize("given", ["", "/", "out\0.jsonl", "x" * 240 + ".jsonl"])
def test_an_invalid_path_is_refused(given: str) -> None:
    with pytest.raises(UsageError):
        JsonlSink(given).check("talk")


@pytest.mark.parametrize(("limit", "name"), [(3, "out.first-3.jsonl"), (5, "out.jsonl"), (9, "out.jsonl")])
def test_a_partial_output_is_written_beside_an_output_with_more_rows(tmp_path: Path, limit: int, name: str) -> None:
    sink = JsonlSink(tmp_path / "out.jsonl")
    assert sink.for_part("talk", limit, {}) is sink  # there is no file in this place
    with sink.open() as delivery:
        delivery.seal({"job": "talk", "input": {"limit": 5}})
    assert sink.for_part("talk", limit, {}).path.name == name
    assert sink.for_part("other", limit, {}) is sink  # refused like any other job
    with sink.open() as delivery:
        delivery.seal({"job": "talk", "input": {}})
    assert sink.for_part("talk", limit, {}).path.name == f"out.first-{limit}.jsonl"


def test_an_output_of_another_job_explains_how_a_renamed_job_keeps_its_answers(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "out.jsonl")
    with sink.open() as delivery:
        delivery.seal({"job": "talk"})
    with pytest.raises(UsageError, match=r"is the manifest of job 'talk'.*`--reuse talk --overwrite` keeps its"):
        sink.check("renamed")


@pytest.mark.parametrize("depth", [31, 32, 120])
def test_written_parquet_can_be_read_at_any_depth(depth: int, tmp_path: Path) -> None:
    value: object = 1
    for _ in range(depth):
        value = [{"a": value}]
    with ParquetSink(tmp_path / "out.parquet").open() as delivery:
        delivery.complete([{"id": "1", "output": value}])
        delivery.seal({})
    (found,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert orjson.loads(found["output"]) == value


@pytest.mark.parametrize("sink", [JsonlSink, CsvSink, ParquetSink])
def test_values_with_the_maximum_depth_of_the_ledger_are_delivered(
    sink: type[JsonlSink | CsvSink | ParquetSink], tmp_path: Path
) -> None:
    value: object = 1
    for _ in range(254):
        value = [value]
    with sink(tmp_path / "out.file").open() as delivery:
        delivery.complete([{"id": "1", "output": value}])
        delivery.discard([{"id": "2", "deep": value}])
        delivery.seal({})
    assert (tmp_path / "out.file").stat().st_size > 254
