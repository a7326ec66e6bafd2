"""The conformance suite for every sink."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest

from orchestrator import ports
from orchestrator.domain.errors import UsageError
from orchestrator.testing.assertions import AWKWARD_TEXTS, assert_one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Record = Mapping[str, object]

FAILURE: Record = {"id": "z", "error": {"kind": "rejected", "status": 400, "message": "no"}, "attempts": 2}
MANIFEST = {"job": "näme"}
_KILLED = """
import pickle, sys
sink = pickle.loads(sys.stdin.buffer.read(int(sys.argv[1])))
with sink.open() as delivery:
    for number in range(200):
        delivery.complete([{"id": str(number), "output": "x" * 10_000}])
    print("writing", flush=True)
    sys.stdin.read()
"""


def deliver(sink: ports.Sink, *batches: Sequence[Record], failures: Sequence[Record] = ()) -> None:
    """Make one complete delivery."""
    with sink.open() as delivery:
        for batch in batches:
            delivery.complete(batch)
        delivery.discard(failures)
        delivery.seal(MANIFEST)


def answers(*outputs: object) -> list[Record]:
    """Return records with these outputs; their ids are "0", "1" ..."""
    return [{"id": str(number), "output": output} for number, output in enumerate(outputs)]


def names(folder: Path) -> set[str]:
    """Return the names of the files in a folder."""
    return {file.name for file in folder.iterdir()}


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files in a folder, with their contents."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def _needs_a_disk(path: object) -> None:
    if not isinstance(path, Path):
        pytest.skip("a store has no folders")


class SinkConformance:
    """Subclass it as `TestMySink`, and write `sink` and `read`. A sink is a value that can be pickled."""

    name = "out.jsonl"  # of the output file

    def sink(self, path: Path, keep: Sequence[str]) -> ports.Sink:
        """Return a sink that writes this file and keeps these columns."""
        raise NotImplementedError

    def read(self, path: Path) -> list[Record]:
        """Return the records of an output, each with its columns in the order in which they were written."""
        raise NotImplementedError

    def outputs(self, path: Path) -> list[object]:
        """Return the items' outputs."""
        return [record["output"] for record in self.read(path)]

    def names(self, path: Path) -> set[str]:
        """Return the names of the output and of everything beside it."""
        return names(path.parent)

    def contents(self, path: Path) -> dict[str, bytes]:
        """Return the output and everything beside it by name, with their contents."""
        return contents(path.parent)

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """Return the path of the output, in an otherwise empty folder."""
        return tmp_path / self.name

    def test_records_come_back_in_order_and_word_for_word(self, path: Path) -> None:
        sink = self.sink(path, ["text"])
        assert isinstance(sink, ports.Sink)
        records = [{"id": str(number), "text": text, "output": text} for number, text in enumerate(AWKWARD_TEXTS)]
        deliver(sink, records[:3], records[3:], [])
        assert self.read(path) == records

    def test_the_columns_are_id_kept_output_in_this_order(self, path: Path) -> None:
        sink = self.sink(path, ["b", "a", "id", "b"])
        deliver(sink, [{"output": "o", "a": "1", "c": "3", "b": "2", "id": "i"}])
        (record,) = self.read(path)
        assert list(record.items()) == [("id", "i"), ("b", "2"), ("a", "1"), ("output", "o")]

    def test_a_delivery_without_records_is_a_valid_empty_file(self, path: Path) -> None:
        deliver(self.sink(path, ["text"]))
        assert self.read(path) == []
        assert self.names(path) == {"out.manifest.json", path.name}

    def test_an_output_of_ten_megabytes_survives(self, path: Path) -> None:
        lines = ("x" * 99 + "\n") * 100_000
        deliver(self.sink(path, ()), answers(lines))
        assert self.outputs(path) == [lines]

    def test_placeholders_are_filled_in_for_a_run(self, path: Path) -> None:
        template = self.sink(path.with_name("{run}-" + path.name), ["kept"])
        assert template.placeholders == {"run"}
        sink = template.for_run({"run": "7", "date": "d", "job": "j"})
        assert sink.placeholders == frozenset()
        assert sink.keep == ("kept",)
        deliver(sink, answers("a"))
        assert self.outputs(path.with_name("7-" + path.name)) == ["a"]

    def test_it_says_in_one_line_where_it_delivers(self, path: Path) -> None:
        description = self.sink(path, ()).describe()
        assert description
        assert "\n" not in description
        assert self.sink(path.with_name(f"other-{path.name}"), ()).describe() != description

    def test_the_manifest_names_each_file_with_its_hash(self, path: Path) -> None:
        deliver(self.sink(path, ()), answers("a", "b"), answers("c"), failures=[FAILURE])
        text = self.contents(path)["out.manifest.json"].decode()
        assert text.startswith('{\n  "job": "näme",\n')
        manifest = orjson.loads(text)
        assert list(manifest["files"]) == [path.name, "out.failures.jsonl"]
        assert [file["records"] for file in manifest["files"].values()] == [3, 1]
        for name, file in manifest["files"].items():
            content = self.contents(path)[name]
            assert (file["bytes"], file["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())

    def test_failures_are_lines_of_json_and_gone_when_there_are_none_any_more(self, path: Path) -> None:
        deliver(self.sink(path, ()), failures=[FAILURE, FAILURE])
        lines = self.contents(path)["out.failures.jsonl"].splitlines()
        assert [orjson.loads(line) for line in lines] == [FAILURE, FAILURE]
        deliver(self.sink(path, ()), answers("a"))
        assert self.names(path) == {"out.manifest.json", path.name}

    def test_the_folder_is_made_and_the_path_absolute(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        _needs_a_disk(path)
        monkeypatch.chdir(path.parent)
        sink = self.sink(Path("new/er") / path.name, ["a"])
        deliver(sink, [])
        assert sink.describe() == str(path.parent / "new" / "er" / path.name)
        assert (path.parent / "new" / "er" / path.name).is_file()

    @pytest.mark.parametrize("earlier", [True, False])
    def test_an_unsealed_delivery_leaves_everything_as_it_was(self, path: Path, *, earlier: bool) -> None:
        sink = self.sink(path, ())
        if earlier:
            deliver(sink, answers("old"), failures=[FAILURE])
        before = self.contents(path)
        with sink.open() as delivery:
            delivery.complete(answers("new"))
            delivery.discard([FAILURE] * 3)
        assert self.contents(path) == before

    def test_a_delivery_that_raises_leaves_nothing(self, path: Path) -> None:
        with pytest.raises(TypeError):
            deliver(self.sink(path, ()), answers("a"), answers(object()))
        assert self.names(path) == set()

    def test_until_it_is_sealed_a_delivery_changes_nothing(self, path: Path) -> None:
        sink = self.sink(path, ())
        deliver(sink, answers("old"))
        with sink.open() as delivery:
            delivery.complete(answers("new"))
            assert self.outputs(path) == ["old"]
            assert all(name.startswith(".") for name in self.names(path) if not name.startswith("out"))
            delivery.seal(MANIFEST)
            assert self.outputs(path) == ["new"]

    def test_two_deliveries_at_once_do_not_mix(self, path: Path) -> None:
        sink = self.sink(path, ())
        with sink.open() as first, sink.open() as second:
            first.complete(answers("first"))
            second.complete(answers("second"))
            second.seal(MANIFEST)
            first.seal(MANIFEST)
        assert self.outputs(path) == ["first"]
        assert self.names(path) == {"out.manifest.json", path.name}

    def test_a_killed_delivery_leaves_the_old_one_whole_and_the_next_one_sweeps(self, path: Path) -> None:
        sink = self.sink(path, ())
        deliver(sink, answers("old"), failures=[FAILURE])
        before = self.contents(path)
        pickled = pickle.dumps(sink)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", _KILLED, str(len(pickled))]
        with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdin
            assert child.stdout
            child.stdin.write(pickled)
            child.stdin.flush()
            assert child.stdout.readline() == b"writing\n"
            aside = self.names(path)
            with sink.open():
                assert aside <= self.names(path), "files that a live process writes must not be removed"
            child.kill()
        left = self.contents(path)
        assert {name: left[name] for name in before} == before
        deliver(sink, answers("new"), failures=[FAILURE])
        assert self.names(path) == set(before)

    # -- paths that cannot be written ---------------------------------------------------------------------------------

    @pytest.mark.parametrize("taken", ["{}", "out.failures.jsonl", "out.manifest.json"])
    def test_a_folder_in_place_of_a_file_is_refused_before_anything_is_written(self, path: Path, taken: str) -> None:
        _needs_a_disk(path)
        folder = path.parent / taken.format(path.name)
        folder.mkdir()
        with pytest.raises(UsageError) as failure, self.sink(path, ()).open():
            pass
        assert_one_line(failure, folder)
        assert self.names(path) == {folder.name}

    def test_a_file_in_place_of_the_folder_is_refused(self, path: Path) -> None:
        _needs_a_disk(path)
        (path.parent / "file").touch()
        with pytest.raises(UsageError) as failure, self.sink(path.parent / "file" / path.name, ()).open():
            pass
        assert_one_line(failure, path.parent / "file" / path.name)

    # -- the files that it writes -------------------------------------------------------------------------------------

    def test_it_names_every_file_that_it_writes(self, path: Path) -> None:
        sink = self.sink(path, ())
        if not isinstance(sink, ports.WritesFiles):
            return
        with sink.open() as delivery:
            delivery.complete(answers("a"))
            delivery.discard([FAILURE])
            delivery.seal(MANIFEST)
        assert {path.with_name(name) for name in self.names(path)} <= set(sink.writes())

    def test_it_refuses_to_replace_what_another_job_has_written(self, path: Path) -> None:
        sink = self.sink(path, ())
        if not isinstance(sink, ports.WritesFiles):
            return
        deliver(self.sink(path, ()), answers("a"))
        sink.check(MANIFEST["job"])
        with pytest.raises(UsageError) as failure:
            sink.check("another job")
        assert_one_line(failure, path.with_name("out."))
