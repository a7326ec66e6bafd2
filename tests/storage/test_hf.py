"""hf:// locations: files of repos and buckets on the Hugging Face Hub."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.domain.errors import NoFiles, StorageSilent, UsageError
from orchestrator.domain.location import Location
from orchestrator.sources import CsvSource, JsonlSource, ParquetSource, TextSource
from orchestrator.storage import opened, storage_of
from orchestrator.storage.hf import Hf
from tests.hub_server import FakeHub, Trouble, fake_hub
from tests.web_service import web_service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator.ports import Source


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with fake_hub(page_size=2) as hub:
        for name, value in hub.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        yield hub


def ids(source: Source) -> list[str | None]:
    with source.rows() as rows:
        return [row.id for row in rows]


def lines(*names: str) -> bytes:
    return b"".join(b'{"id": "%s", "text": "t"}\n' % name.encode() for name in names)


def parquet(rows: int, groups: int) -> bytes:
    data = io.BytesIO()
    noise = [f"{number:07}" * 200 for number in range(rows)]
    table = pa.table({"id": [str(number) for number in range(rows)], "text": noise, "other": noise})
    pq.write_table(table, data, row_group_size=rows // groups, compression="none", use_dictionary=False)
    return data.getvalue()


@pytest.mark.parametrize(
    ("address", "bucket", "key"),
    [
        ("hf://datasets/acme/x/data/a.csv", "datasets/acme/x", "data/a.csv"),
        ("hf://datasets/acme/x@v1/a.csv", "datasets/acme/x@v1", "a.csv"),
        ("hf://datasets/acme/x@refs/pr/7/data/a.csv", "datasets/acme/x@refs/pr/7", "data/a.csv"),
        ("hf://acme/model/a.csv", "acme/model", "a.csv"),
        ("hf://spaces/acme/s/a.csv", "spaces/acme/s", "a.csv"),
        ("hf://buckets/acme/b/in/*.jsonl", "buckets/acme/b", "in/*.jsonl"),
        ("hf://datasets/acme/x", "datasets/acme/x", ""),
    ],
)
def test_an_address_is_a_repo_and_a_path(address: str, bucket: str, key: str) -> None:
    location = Location(address)
    assert (location.scheme, location.bucket, location.key) == ("hf", bucket, key)
    if key:
        assert location.with_name("b.csv").bucket == bucket
        assert location.with_key(key) == address


class TestReading:
    def test_files_of_every_kind_of_repo_are_read(self, hub: FakeHub) -> None:
        hub.add("acme/x", {"in/a.jsonl": lines("a"), "b.csv": b"id,text\nb,t\n", "c.parquet": parquet(2, 1)})
        hub.add("acme/model", {"a.jsonl": lines("m")}, type="model")
        hub.add_bucket("acme/scratch", {"in/a.jsonl": lines("s")})
        assert ids(JsonlSource("hf://datasets/acme/x/in/a.jsonl", id="id")) == ["a"]
        assert ids(CsvSource("hf://datasets/acme/x/b.csv", id="id")) == ["b"]
        assert ids(ParquetSource("hf://datasets/acme/x/c.parquet", id="id")) == ["0", "1"]
        assert ids(JsonlSource("hf://acme/model/a.jsonl", id="id")) == ["m"]
        assert ids(JsonlSource("hf://buckets/acme/scratch/in/a.jsonl", id="id")) == ["s"]

    @pytest.mark.parametrize("root", ["datasets/acme/x", "datasets/acme/x@main", "buckets/acme/x"])
    def test_patterns_and_folders_are_read_in_order(self, hub: FakeHub, root: str) -> None:
        files = {f"in/{name}.jsonl": lines(name) for name in ("c", "a", "b")}
        files |= {"in/deep/er/d.jsonl": lines("d"), "in/.hidden.jsonl": lines("h"), "other.jsonl": lines("o")}
        hub.add("acme/x", files)
        hub.add_bucket("acme/x", files)
        for pattern, found in [
            ("in/*.jsonl", "abc"),
            ("in/**/*.jsonl", "abcd"),
            ("in/[ab].jsonl", "ab"),
            ("in/", "abcd"),
            ("*.jsonl", "o"),
            ("", "abcdo"),
        ]:
            assert sorted(filter(None, ids(JsonlSource(f"hf://{root}/{pattern}", id="id")))) == list(found)
        with pytest.raises(NoFiles):
            ids(JsonlSource(f"hf://{root}/none/*.jsonl", id="id"))

    def test_a_revision_is_a_branch_a_tag_or_a_commit(self, hub: FakeHub) -> None:
        repo = hub.add("acme/x", {"a.jsonl": lines("old")})
        repo.tags["v1"] = repo.commits[-1]
        repo.branches["refs/pr/1"] = [hub._commit("a pull request", {"a.jsonl": lines("pr")})]
        commit = repo.commits[-1].oid
        hub.push("acme/x", {"a.jsonl": lines("new")})
        found = {
            name: ids(JsonlSource(f"hf://datasets/acme/x{name}/a.jsonl", id="id"))
            for name in ("", "@main", "@v1", f"@{commit}", "@refs/pr/1")
        }
        assert list(found.values()) == [["new"], ["new"], ["old"], ["old"], ["pr"]]

    def test_all_files_are_read_at_one_commit_even_if_the_branch_moves(self, hub: FakeHub) -> None:
        hub.add("acme/x", {"a.jsonl": lines("a"), "b.jsonl": lines("b")})
        with JsonlSource("hf://datasets/acme/x/*.jsonl", id="id").rows() as rows:
            first = next(rows).id
            hub.push("acme/x", {"b.jsonl": lines("changed")})
            assert [first, *(row.id for row in rows)] == ["a", "b"]

    @pytest.mark.parametrize("path", ["a.jsonl", "*.jsonl"])
    @pytest.mark.parametrize("kind", ["datasets", "buckets"])
    def test_a_change_is_seen_at_once_and_only_a_change(self, hub: FakeHub, path: str, kind: str) -> None:
        repo, bucket = hub.add("acme/x", {"a.jsonl": lines("a")}), hub.add_bucket("acme/x", {"a.jsonl": lines("a")})
        source = JsonlSource(f"hf://{kind}/acme/x/{path}", id="id")
        first = source.sha256()
        assert ids(source) == ["a"]
        hub.push("acme/x", {"notes.txt": b"a commit that leaves the file alone"})
        bucket.files["notes.txt"] = b"as above"
        assert source.sha256() == first
        hub.push("acme/x", {"a.jsonl": lines("b")})
        bucket.files["a.jsonl"] = lines("b")
        assert source.sha256() != first
        assert ids(source) == ["b"]
        if path == "*.jsonl":
            second = source.sha256()
            hub.push("acme/x", {"c.jsonl": lines("c")})
            bucket.files["c.jsonl"] = lines("c")
            assert source.sha256() != second
            assert ids(source) == ["b", "c"]
        assert len(repo.commits) >= 3

    def test_versions_do_not_need_the_content(self, hub: FakeHub) -> None:
        hub.add("acme/x", {"a.parquet": parquet(10, 1)})
        ParquetSource("hf://datasets/acme/x/*.parquet", id="id").sha256()
        assert hub.seen("/resolve/") == []

    def test_only_the_columns_that_are_used_are_read_by_range(self, hub: FakeHub) -> None:
        data = parquet(3000, 3)
        hub.add("acme/x", {"a.parquet": data})
        source = ParquetSource("hf://datasets/acme/x/a.parquet", id="id").selecting(frozenset({"text"}))
        assert len(ids(source)) == 3000
        asked = [request for request in hub.requests if request.storage]
        assert all(request.range for request in asked)
        ends = [request.range.removeprefix("bytes=").split("-") for request in asked if request.range]
        sizes = [int(end) - int(begin) + 1 for begin, end in ends]
        assert sum(sizes) < 0.6 * len(data)
        assert len(asked) <= 12, "footer, head, and a few ranges for each of three row groups"

    def test_the_token_goes_to_the_hub_alone(self, hub: FakeHub) -> None:
        hub.add("acme/x", {"a.parquet": parquet(10, 1)}, visibility="private")
        assert len(ids(ParquetSource("hf://datasets/acme/x/a.parquet", id="id"))) == 10
        assert {request.token for request in hub.requests if request.storage} == {None}
        assert {request.token for request in hub.seen("/resolve/")} == {hub.token}

    def test_a_cut_connection_and_an_error_are_repeated(self, hub: FakeHub) -> None:
        hub.add("acme/x", {"a.jsonl": lines("a")})
        hub.trouble(Trouble("GET .*/resolve/", cut=0))
        assert ids(JsonlSource("hf://datasets/acme/x/a.jsonl", id="id")) == ["a"]

    def test_a_file_of_a_bucket_that_is_replaced_by_one_of_the_same_size_is_noticed(self, hub: FakeHub) -> None:
        bucket = hub.add_bucket("acme/x", {"a.txt": b"x\n" * 10})
        with (  # noqa: PT012 - the rows are read within the source's block
            pytest.raises(UsageError, match=r"a\.txt changed while it was read: run again"),
            TextSource("hf://buckets/acme/x/a.txt").rows() as rows,
        ):
            next(rows)
            bucket.files["a.txt"] = b"y\n" * 10
            list(rows)

    def test_a_file_that_is_overwritten_while_it_is_read_is_noticed(self, hub: FakeHub) -> None:
        bucket = hub.add_bucket("acme/x", {"a.bin": b"x" * 1000})
        with storage_of(Location("hf://buckets/acme/x/a.bin")).open(Location("hf://buckets/acme/x/a.bin")) as file:
            assert file.read(10) == b"x" * 10
            bucket.files["a.bin"] = b"y" * 2000
            with pytest.raises(UsageError, match="changed while it was read: run again"):
                file.read(10)


class TestWhatCannotBeRead:
    """Each failure is one line with the location and the remedy."""

    def fails(self, address: str, words: str, kind: type[Exception] = UsageError) -> None:
        with pytest.raises(kind) as failure:
            ids(JsonlSource(address, id="id"))
        assert address in str(failure.value)
        assert words in str(failure.value)
        assert "\n" not in str(failure.value)

    def test_no_such_file_repo_revision_or_bucket(self, hub: FakeHub) -> None:
        hub.add("acme/x")
        self.fails("hf://datasets/acme/x/none.jsonl", "does not exist")
        self.fails("hf://datasets/acme/none/a.jsonl", "check the name")
        self.fails("hf://datasets/acme/x@none/a.jsonl", "no such revision")
        self.fails("hf://buckets/acme/none/a.jsonl", "check the name")
        self.fails("hf://datasets/x/a.jsonl", "check the name")

    def test_a_gated_repo(self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
        hub.add("acme/gated", {"a.jsonl": lines("a")}, gated=True)
        hub.grant("hf_stranger", "bob", "bob")
        monkeypatch.setenv("HF_TOKEN", "hf_stranger")
        self.fails("hf://datasets/acme/gated/a.jsonl", "is gated: ask for access")

    def test_a_revoked_token(self, hub: FakeHub) -> None:
        hub.add("acme/x", {"a.jsonl": lines("a")})
        hub.revoke()
        self.fails("hf://datasets/acme/x/a.jsonl", "refuses the Hugging Face token")

    def test_a_hub_that_is_down(self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
        hub.add("acme/x", {"a.jsonl": lines("a")})
        hub.trouble(Trouble("/resolve/", 503, times=100))
        self.fails("hf://datasets/acme/x/a.jsonl", "answers 503", StorageSilent)

    def test_a_hub_that_asks_to_wait_for_a_day(self, hub: FakeHub) -> None:
        hub.add("acme/x", {"a.jsonl": lines("a")})
        hub.trouble(Trouble("/resolve/", 429, after="86400"))
        said = "the Hub answers 429 and asks to wait 24 h 0 min: run again after that time"
        self.fails("hf://datasets/acme/x/a.jsonl", said, StorageSilent)

    @pytest.mark.parametrize("endpoint", ["hub.acme.example", "ftp://hub.acme.example", "http://[::bad"])
    def test_an_endpoint_that_is_no_address(self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        self.fails("hf://datasets/acme/x/a.jsonl", "HF_ENDPOINT is not the address of a Hub: write https://HOST")

    def test_an_endpoint_that_is_another_web_server(self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
        with web_service() as web:
            web.put("/api/datasets/acme/x/revision/main", b"<html>Please sign in</html>")
            monkeypatch.setenv("HF_ENDPOINT", web.url)
            self.fails("hf://datasets/acme/x/a.jsonl", "what answers is not the Hub: check HF_ENDPOINT and the proxy")

    def test_a_key_in_the_address(self) -> None:
        with pytest.raises(UsageError, match="holds a key"):
            JsonlSource("hf://datasets/acme/x/a.jsonl?token=hf_abc")


class TestWriting:
    def test_a_file_of_a_repo_is_refused_and_hubsink_is_named(self) -> None:
        with pytest.raises(UsageError, match=r"HubSink\('acme/x'\)"):
            Hf().check_writable(Location("hf://datasets/acme/x/out.jsonl"))

    def test_a_bucket_that_does_not_exist_is_refused(self, hub: FakeHub) -> None:
        with pytest.raises(UsageError, match="check the name"):
            Hf().check_writable(Location("hf://buckets/acme/none/out.jsonl"))

    def test_files_of_a_bucket_are_written_copied_and_deleted(self, hub: FakeHub, tmp_path: Path) -> None:
        """In a process of its own: what uploads must not be forked afterwards."""
        hub.add_bucket("acme/scratch")
        script = """
import io, json
from orchestrator.domain.location import Location
from orchestrator.storage import contents, delete, exists, fingerprint, storage_of
one, two = (Location(f"hf://buckets/acme/scratch/out/{name}.jsonl") for name in ("one", "two"))
storage = storage_of(one)
storage.put(one, io.BytesIO(b"first"))
first = fingerprint(one)
storage.put(one, io.BytesIO(b"second " * 100_000))
storage.copy(one, two)
same = contents(one) == contents(two) == b"second " * 100_000
delete(one)
delete(one)
print(json.dumps([first != fingerprint(two), same, exists(one), exists(two)]))
"""
        environment = {**hub.environment(tmp_path, xet=True), "PYTHONPATH": ":".join(sys.path)}
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        assert json.loads(done.stdout) == [True, True, False, True]
        assert list(hub.buckets["acme/scratch"].files) == ["out/two.jsonl"]


def test_a_stream_reads_the_whole_file(hub: FakeHub) -> None:
    hub.add("acme/x", {"a.bin": bytes(range(256)) * 1000})
    with opened(Location("hf://datasets/acme/x/a.bin")) as file:
        assert file.read() == bytes(range(256)) * 1000
