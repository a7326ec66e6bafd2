"""HubSink: what a delivery makes of a dataset on the Hub, and what it refuses."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml  # type: ignore[import-untyped] # its stubs are a package of their own
from huggingface_hub import close_session, constants

from orchestrator import Job, ports
from orchestrator.domain.errors import StorageSilent, UsageError
from orchestrator.endpoints import HttpEndpoint
from orchestrator.engine.run.files import check_files
from orchestrator.kinds import SINKS, Writer
from orchestrator.sinks import HubSink
from orchestrator.sources import ParquetSource
from orchestrator.testing.assertions import AWKWARD_TEXTS
from orchestrator.testing.sinks import FAILURE, answers
from tests.hub_server import FakeHub, Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    Record = Mapping[str, object]

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the client's own requests
SHARD = "data/train-00000-of-00001.parquet"
MANIFEST = {
    "job": "label",
    "run": 3,
    "counts": {"inputs": 3, "completed": 2, "discarded": 1, "skipped": 0},
    "finished": True,
    "input": {"source": "/home/me/private/reviews.csv", "sha256": "abc"},
    "fingerprint": "f00",
    "endpoint": {"model": "acme/model", "revision": "r1"},
    "request": {"inputs": "Label this: {text}"},
}


def deliver(
    sink: HubSink, records: Sequence[Record] = (), failures: Sequence[Record] = (), **changes: object
) -> Mapping[str, object]:
    manifest = {**MANIFEST, **changes}
    sink.check(str(manifest["job"]))
    with sink.open() as delivery:
        delivery.complete(records)
        delivery.discard(failures)
        return delivery.seal(manifest)


def files(hub: FakeHub, repo: str = "acme/reviews") -> set[str]:
    return set(hub.dataset(repo).files) - {".gitattributes"}


def rows(hub: FakeHub, repo: str = "acme/reviews") -> list[Record]:
    there = hub.dataset(repo).files
    shards = sorted(path for path in there if path.endswith(".parquet"))
    return [row for path in shards for row in pq.read_table(io.BytesIO(there[path])).to_pylist()]


def commits(hub: FakeHub, repo: str = "acme/reviews") -> list[str]:
    return [commit.title for commit in hub.dataset(repo).commits[1:]]


def card(hub: FakeHub, repo: str = "acme/reviews") -> str:
    return hub.dataset(repo).files["README.md"].decode()


def head(hub: FakeHub) -> dict[str, object]:
    found = yaml.safe_load(card(hub).split("---\n")[1])
    assert isinstance(found, dict)
    return found


class TestADelivery:
    def test_is_one_commit_with_rows_failures_manifest_and_card(self, hub: FakeHub) -> None:
        sink = HubSink("acme/reviews", ["text", "id"])
        assert isinstance(sink, ports.Sink)
        assert isinstance(sink, ports.ChecksTarget)
        records = [{"id": str(number), "text": text, "output": text} for number, text in enumerate(AWKWARD_TEXTS)]
        sealed = deliver(sink, records, [FAILURE])
        assert files(hub) == {SHARD, "data/train.failures.jsonl", "data/train.manifest.json", "README.md"}
        assert commits(hub) == ["Deliver run 3 of job label: 2 rows"]
        assert rows(hub) == records
        there = hub.dataset("acme/reviews").files
        assert [json.loads(line) for line in there["data/train.failures.jsonl"].splitlines()] == [FAILURE]
        manifest = orjson.loads(there["data/train.manifest.json"])
        assert sealed == {**manifest, "commit": hub.dataset("acme/reviews").commits[-1].oid}
        for name, about in manifest["files"].items():
            content = there[f"data/{name}"]
            assert (about["sha256"], about["bytes"]) == (hashlib.sha256(content).hexdigest(), len(content))
        assert [about["records"] for about in manifest["files"].values()] == [len(records), 1]

    def test_makes_a_private_dataset_unless_told_otherwise(self, hub: FakeHub) -> None:
        deliver(HubSink("acme/reviews"), answers("a"))
        deliver(HubSink("acme/open", visibility="public"), answers("a"))
        assert [hub.dataset(name).visibility for name in ("acme/reviews", "acme/open")] == ["private", "public"]

    def test_without_rows_is_an_empty_split(self, hub: FakeHub) -> None:
        deliver(HubSink("acme/reviews"), counts={"inputs": 0, "completed": 0, "discarded": 0, "skipped": 0})
        assert files(hub) == {SHARD, "data/train.manifest.json", "README.md"}
        assert rows(hub) == []
        assert "load_dataset" not in card(hub), "it fails on a split without rows"

    def test_has_as_many_files_as_the_size_of_one_demands(self, hub: FakeHub) -> None:
        records = answers(*(f"text {number} {'x' * 50}" for number in range(1000)))
        sealed = deliver(HubSink("acme/reviews", max_shard_bytes=10_000), records)
        shards = sorted(path for path in files(hub) if path.endswith(".parquet"))
        assert len(shards) > 1
        assert shards == [f"data/train-{number:05}-of-{len(shards):05}.parquet" for number in range(len(shards))]
        assert rows(hub) == records
        about = sealed["files"]
        assert isinstance(about, dict)
        assert sum(one["records"] for one in about.values()) == 1000

    def test_that_is_not_sealed_leaves_nothing_here_or_there(self, hub: FakeHub, tmp_path: Path) -> None:
        with HubSink("acme/reviews").open() as delivery:
            delivery.complete(answers("a"))
        assert hub.repos == {}
        assert list(tmp_path.iterdir()) == []

    def test_of_a_killed_process_leaves_nothing_there_and_the_next_one_removes_its_files_here(
        self, hub: FakeHub, tmp_path: Path
    ) -> None:
        program = """
import pickle, sys
with pickle.load(sys.stdin.buffer).open() as delivery:
    delivery.complete([{"id": "1", "output": "x" * 10_000}])
    print("writing", flush=True)
    sys.stdin.read()
"""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", program]
        with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdin
            assert child.stdout
            child.stdin.write(pickle.dumps(HubSink("acme/reviews")))
            child.stdin.flush()
            assert child.stdout.readline() == b"writing\n"
            (theirs,) = tmp_path.glob("orchestrator-*")
            deliver(HubSink("acme/other"), answers("b"))
            assert theirs.exists(), "what a live process writes must not be removed"
            child.kill()
        deliver(HubSink("acme/reviews"), answers("a"))
        assert commits(hub) == ["Deliver run 3 of job label: 2 rows"]
        assert list(tmp_path.glob("*orchestrator-*")) == []

    def test_of_the_same_answers_makes_no_second_commit(self, hub: FakeHub) -> None:
        sink = HubSink("acme/reviews")
        first = deliver(sink, answers("a"), [FAILURE])
        second = deliver(sink, answers("a"), [FAILURE], run=4, delivered_at="later")
        assert second == first
        assert len(commits(hub)) == 1

    def test_replaces_an_earlier_one_and_deletes_what_is_no_longer_named(self, hub: FakeHub) -> None:
        many = answers(*(f"{number} {'x' * 50}" for number in range(1000)))
        deliver(HubSink("acme/reviews", max_shard_bytes=10_000), many, [FAILURE])
        hub.push("acme/reviews", {"data/notes.txt": b"mine", "data/test-00000-of-00001.parquet": b"another split"})
        deliver(HubSink("acme/reviews"), answers("a"), input={"sha256": "other"})
        assert len(commits(hub)) == 3
        kept = {"data/notes.txt", "data/test-00000-of-00001.parquet"}
        assert files(hub) == {SHARD, "data/train.manifest.json", "README.md"} | kept

    def test_with_fewer_of_the_same_rows_says_which_commit_has_the_earlier_ones(self, hub: FakeHub) -> None:
        first = deliver(HubSink("acme/reviews"), answers("a", "b"))
        second = deliver(HubSink("acme/reviews"), answers("a"), run=4)
        address = f"hf://datasets/acme/reviews@{first['commit']}/data/train-*.parquet"
        assert second["earlier"] == {"run": 3, "file": address, "records": 2}
        assert f"| earlier rows | 2 of run 3, in `{address}` |" in card(hub)

    def test_in_which_nothing_was_completed_keeps_the_earlier_rows(self, hub: FakeHub) -> None:
        deliver(HubSink("acme/reviews"), answers("a", "b"))
        second = deliver(HubSink("acme/reviews"), failures=[FAILURE], run=4)
        assert second["kept_from_run"] == 3
        assert len(rows(hub)) == 2
        assert "this run completed nothing: the rows are those of run 3" in card(hub)
        assert "load_dataset" in card(hub)
        deliver(HubSink("acme/reviews"), answers("c", "d"), run=5)
        assert [row["output"] for row in rows(hub)] == ["c", "d"]

    def test_of_an_unfinished_run_does_not_replace_that_of_a_finished_one(self, hub: FakeHub) -> None:
        deliver(HubSink("acme/reviews"), answers("a"))
        with pytest.raises(UsageError, match=r"finished output of run 3.*not finished"):
            deliver(HubSink("acme/reviews"), answers("b"), finished=False)
        assert [row["output"] for row in rows(hub)] == ["a"]

    def test_of_another_split_or_config_leaves_the_others_alone(self, hub: FakeHub) -> None:
        deliver(HubSink("acme/reviews"), answers("a"))
        deliver(HubSink("acme/reviews", split="test"), answers("b"), job="other")
        deliver(HubSink("acme/reviews", config="long"), answers("c"), job="third")
        shards = {path for path in files(hub) if path.endswith(".parquet")}
        assert shards == {SHARD, "data/test-00000-of-00001.parquet", "long/train-00000-of-00001.parquet"}
        data = [{"split": "train", "path": "data/train-*"}, {"split": "test", "path": "data/test-*"}]
        assert head(hub)["configs"] == [
            {"config_name": "default", "data_files": data},
            {"config_name": "long", "data_files": [{"split": "train", "path": "long/train-*"}]},
        ]

    def test_of_the_first_rows_goes_to_another_split_if_there_are_more(self, hub: FakeHub) -> None:
        sink = HubSink("acme/{job}")
        names = {"run": "7", "date": "2026-01-01", "job": "reviews"}
        assert sink.for_part("label", 10, names) == sink
        deliver(sink.for_run(names), answers("a"))
        assert sink.for_part("label", 10, names).split == "train_first_10"
        assert sink.for_part("another job", 10, names) == sink


class TestTheCard:
    def test_says_how_the_rows_were_made(self, hub: FakeHub) -> None:
        more = {"causes": [{"kind": "rejected", "status": 400, "items": 1}], "tokens": {"in": 1234, "out": 99}}
        cost = {"seconds": 36.1, "dollars": 0.0123}
        deliver(HubSink("acme/reviews"), answers("a", "b"), [FAILURE], **more, cost=cost)
        text = card(hub)
        sha256 = hashlib.sha256(hub.dataset("acme/reviews").files["data/train.manifest.json"]).hexdigest()
        facts = ["acme/model", "r1", "2 completed, 1 discarded", "1,234 in, 99 out", "$0.0123 for 36.1 s awake", sha256]
        assert [fact for fact in [*facts, "Label this: {text}", "rejected 400 | 1", "`f00`"] if fact not in text] == [
            "`f00`"
        ]
        assert 'load_dataset("acme/reviews", split="train")' in text
        assert head(hub) == {
            "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}],
            "tags": ["synthetic"],
            "size_categories": ["n<1K"],
        }

    def test_and_the_manifest_do_not_say_where_files_are_here(self, hub: FakeHub) -> None:
        deliver(HubSink("acme/reviews"), answers("a"))
        everything = b"".join(hub.dataset("acme/reviews").files.values())
        assert b"reviews.csv" in everything
        assert b"/home/me" not in everything
        assert hub.token.encode() not in everything

    def test_is_left_out_on_request_and_so_is_the_prompt(self, hub: FakeHub) -> None:
        deliver(HubSink("acme/reviews", card=False), answers("a"))
        assert files(hub) == {SHARD, "data/train.manifest.json"}
        assert b"Label this" not in hub.dataset("acme/reviews").files["data/train.manifest.json"]

    def test_keeps_what_somebody_wrote(self, hub: FakeHub) -> None:
        theirs = "---\nlicense: mit # ours\ntags:\n- reviews\npretty_name: Größe\n---\n# My title\n\nMy words.\n"
        hub.add("acme/reviews", {"README.md": theirs.encode()}, visibility="private")
        deliver(HubSink("acme/reviews"), answers("a"))
        deliver(HubSink("acme/reviews"), answers("b"), run=4)
        edited = card(hub).replace("My words.", "My new words.") + "\n## And more\n"
        hub.push("acme/reviews", {"README.md": edited.encode()})
        deliver(HubSink("acme/reviews"), answers("c"), run=5)
        text = card(hub)
        assert text.count("## train: answers of a model") == 1
        assert "# My title\n\nMy new words.\n\n<!-- orchestrator: begin" in text
        assert text.endswith("end of default/train -->\n\n## And more\n")
        assert (head(hub)["license"], head(hub)["tags"]) == ("mit", ["reviews", "synthetic"])
        assert head(hub)["pretty_name"] == "Größe"

    def test_whose_text_somebody_changed_outside_our_part_is_no_reason_for_a_commit(self, hub: FakeHub) -> None:
        deliver(HubSink("acme/reviews"), answers("a"))
        hub.push("acme/reviews", {"README.md": card(hub).replace("# reviews", "# Reviews!").encode()})
        deliver(HubSink("acme/reviews"), answers("a"), run=4)
        assert len(commits(hub)) == 2

    @pytest.mark.parametrize(
        "broken", ["---\na: [\n---\n", "---\n- a\n---\n", "<!-- orchestrator: begin of default/train -->"]
    )
    def test_that_cannot_be_read_is_refused(self, hub: FakeHub, broken: str) -> None:
        hub.add("acme/reviews", {"README.md": broken.encode()}, visibility="private")
        with pytest.raises(UsageError, match=r"acme/reviews/README.md has .*: (correct|restore)"):
            HubSink("acme/reviews").check("label")
        HubSink("acme/reviews", card=False).check("label")

    def test_names_the_data_of_others_that_was_loaded_without_being_named(self, hub: FakeHub) -> None:
        hub.add("acme/reviews", {"data/test-00000-of-00001.parquet": b"PAR1"}, visibility="private")
        deliver(HubSink("acme/reviews"), answers("a"))
        data = [{"split": "test", "path": "data/test-*"}, {"split": "train", "path": "data/train-*"}]
        assert head(hub)["configs"] == [{"config_name": "default", "data_files": data}]

    def test_would_hide_the_data_of_others_so_this_is_refused_before_anything_is_asked(self, hub: FakeHub) -> None:
        hub.add("acme/reviews", {"reviews.csv": b"a,b"}, visibility="private")
        with pytest.raises(UsageError, match=r"names no configs, so reviews.csv would no longer be loaded"):
            HubSink("acme/reviews").check("label")


class TestItRefuses:
    def test_files_of_the_split_that_the_job_has_not_written(self, hub: FakeHub) -> None:
        hub.add("acme/reviews", {"data/train-0.parquet": b"PAR1"}, visibility="private")
        with pytest.raises(UsageError, match=r"data/train-0.parquet is a file that no delivery of job 'label' has"):
            HubSink("acme/reviews").check("label")
        deliver(HubSink("acme/reviews", overwrite=True), answers("a"))
        assert files(hub) == {SHARD, "data/train.manifest.json", "README.md"}

    def test_what_another_job_has_written(self, hub: FakeHub) -> None:
        deliver(HubSink("acme/reviews"), answers("a"))
        HubSink("acme/reviews").check("label")
        with pytest.raises(UsageError, match=r"is the manifest of job 'label'"):
            HubSink("acme/reviews").check("another job")

    def test_a_file_that_was_changed(self, hub: FakeHub) -> None:
        deliver(HubSink("acme/reviews"), answers("a"))
        hub.push("acme/reviews", {SHARD: b"PAR1 changed"})
        with pytest.raises(UsageError, match=r"was changed since run 3 of job 'label' wrote it"):
            HubSink("acme/reviews").check("label")

    def test_files_of_a_run_that_has_not_delivered_yet(self, hub: FakeHub) -> None:
        deliver(HubSink("acme/reviews"), answers("a"))
        with pytest.raises(UsageError, match="an earlier run with the same number"):
            HubSink("acme/reviews").check("label", replaces=False)

    @pytest.mark.parametrize("source", ["acme/reviews/data/*.parquet", "acme/reviews@main/**/*.parquet"])
    def test_to_write_what_the_source_reads(self, hub: FakeHub, tmp_path: Path, source: str) -> None:
        hub.add("acme/reviews", {"data/raw.parquet": b"PAR1"}, visibility="private")
        rows = ParquetSource(f"hf://datasets/{source}", id="id")
        sink = HubSink("acme/reviews", split="labelled")
        job = Job(name="label", source=rows, endpoint=HttpEndpoint("http://127.0.0.1:1"), sink=sink)
        with pytest.raises(
            UsageError, match=r"the output would overwrite hf://datasets/acme/reviews.*which the source"
        ):
            check_files(job, tmp_path / "ledger.db", None)

    def test_an_output_that_does_not_fit_the_declared_type(self, hub: FakeHub) -> None:
        sink = HubSink("acme/reviews", schema=pa.list_(pa.float32(), 2))
        deliver(sink, answers([0.5, 1.0]))
        shard = pq.read_schema(io.BytesIO(hub.dataset("acme/reviews").files[SHARD]))
        assert shard.field("output").type == pa.list_(pa.float32(), 2)
        with pytest.raises(UsageError, match="does not fit the declared type"):
            deliver(sink, answers([0.5, 1.0], [0.5]))
        assert len(commits(hub)) == 1

    def test_a_public_dataset_if_the_rows_are_to_be_private(self, hub: FakeHub) -> None:
        hub.add("acme/reviews")
        with pytest.raises(UsageError, match=r"acme/reviews is public"):
            HubSink("acme/reviews").check("label")

    @pytest.mark.parametrize(
        "make",
        [
            lambda: HubSink("reviews"),
            lambda: HubSink("acme/re views"),
            lambda: HubSink("acme/{what}"),
            lambda: HubSink("acme/reviews", split="a-b"),
            lambda: HubSink("acme/reviews", split="day_{date}"),
            lambda: HubSink("acme/reviews", config="a/b"),
            lambda: HubSink("acme/reviews", config="data"),
            lambda: HubSink("acme/reviews", ["output"]),
            lambda: HubSink("acme/reviews", max_shard_bytes=0),
            lambda: HubSink("acme/reviews", visibility="secret"),  # type: ignore[arg-type]
        ],
    )
    def test_settings_that_cannot_be_right(self, make: Callable[[], HubSink]) -> None:
        with pytest.raises(UsageError):
            make()


class TestFailures:
    """Each is one line, and what was there before is there afterwards."""

    @pytest.fixture(autouse=True)
    def delivered(self, hub: FakeHub) -> None:
        deliver(HubSink("acme/reviews"), answers("old"))

    def fails(self, hub: FakeHub, kind: type[Exception], words: str, sink: HubSink | None = None) -> None:
        before = hub.dataset("acme/reviews").files
        with pytest.raises(kind) as failure:
            deliver(sink or HubSink("acme/reviews"), answers("new"))
        assert words in str(failure.value)
        assert "\n" not in str(failure.value)
        assert hub.token not in str(failure.value)
        assert "signature" not in str(failure.value)
        assert hub.dataset("acme/reviews").files == before

    def test_a_namespace_that_is_not_ours(self, hub: FakeHub) -> None:
        self.fails(hub, UsageError, "bob/x does not exist, and the owner of", HubSink("bob/x"))

    def test_a_gated_dataset(self, hub: FakeHub) -> None:
        hub.trouble(Trouble("GET /api/datasets/acme/reviews$", 403, message="restricted", code="GatedRepo"))
        self.fails(hub, UsageError, "acme/reviews is gated")

    def test_a_revoked_token(self, hub: FakeHub) -> None:
        hub.revoke()
        self.fails(hub, UsageError, "the Hub refuses the Hugging Face token")

    def test_a_token_that_is_none(self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_tökén")
        self.fails(hub, UsageError, "the Hugging Face token has characters that no token has: set")

    def test_an_endpoint_may_end_with_a_slash(self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_ENDPOINT", f"{hub.url}/")
        deliver(HubSink("acme/reviews"), answers("new"))
        assert [row["output"] for row in rows(hub)] == ["new"]

    def test_no_token(self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("HF_TOKEN")
        self.fails(hub, UsageError, "there is no Hugging Face token", HubSink("acme/new"))

    def test_a_token_that_may_only_read(self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
        hub.grant("hf_reader", "bob", "bob")
        hub.dataset("acme/reviews").visibility = "public"
        monkeypatch.setenv("HF_TOKEN", "hf_reader")
        sink = HubSink("acme/reviews", visibility="public")
        self.fails(hub, UsageError, "use a token that may write to it", sink)

    def test_an_upload_that_is_cut_once_goes_on_and_its_signed_address_is_not_logged(
        self, hub: FakeHub, caplog: pytest.LogCaptureFixture
    ) -> None:
        hub.trouble(Trouble("PUT /lfs/", cut=10))
        deliver(HubSink("acme/reviews"), answers("new"))
        assert "PUT " in caplog.text
        assert "?***" in caplog.text
        assert "=signature" not in caplog.text
        assert [row["output"] for row in rows(hub)] == ["new"]

    def test_an_upload_that_is_cut_for_good(self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
        hub.trouble(Trouble("PUT /lfs/", cut=10, times=100))
        self.fails(hub, StorageSilent, "run again")
        hub.troubles.clear()
        deliver(HubSink("acme/reviews"), answers("new"))
        assert [row["output"] for row in rows(hub)] == ["new"]

    def test_a_branch_that_moved_once_is_looked_at_again(self, hub: FakeHub) -> None:
        hub.trouble(Trouble("POST .*/commit/", meanwhile=lambda: hub.push("acme/reviews", {"notes.txt": b"theirs"})))
        deliver(HubSink("acme/reviews"), answers("new"))
        assert [row["output"] for row in rows(hub)] == ["new"]
        assert "notes.txt" in files(hub)
        assert len(commits(hub)) == 3

    def test_a_branch_that_moves_again_and_again(self, hub: FakeHub) -> None:
        number = iter(range(100))

        def move() -> None:
            hub.push("acme/reviews", {f"{next(number)}.txt": b"theirs"})

        hub.trouble(Trouble("POST .*/commit/", meanwhile=move, times=100))
        with pytest.raises(StorageSilent, match="others commit to it at the same time"):
            deliver(HubSink("acme/reviews"), answers("new"))
        assert [row["output"] for row in rows(hub)] == ["old"]

    def test_a_split_that_somebody_else_changed_meanwhile_is_refused(self, hub: FakeHub) -> None:
        hub.trouble(Trouble("POST .*/commit/", meanwhile=lambda: hub.push("acme/reviews", {SHARD: b"PAR1 theirs"})))
        with pytest.raises(UsageError, match="was changed since"):
            deliver(HubSink("acme/reviews"), answers("new"))
        assert hub.dataset("acme/reviews").files[SHARD] == b"PAR1 theirs"

    def test_a_commit_whose_answer_is_lost_is_found(self, hub: FakeHub) -> None:
        hub.trouble(Trouble("POST .*/commit/", lost=True))
        sealed = deliver(HubSink("acme/reviews"), answers("new"))
        assert sealed["commit"] == hub.dataset("acme/reviews").commits[-1].oid
        assert len(commits(hub)) == 2

    def test_a_hub_that_is_down(self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
        hub.trouble(Trouble("/api/", 503, times=100))
        self.fails(hub, StorageSilent, "the Hub answers 503: run again later")

    @pytest.mark.parametrize("silent", ["GET /api/datasets/", "GET .*/tree/", "POST .*/preupload/", "POST .*/commit/"])
    def test_a_hub_that_accepts_requests_and_answers_none(
        self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, silent: str
    ) -> None:
        close_session()
        monkeypatch.setattr("orchestrator.storage.hub._SILENCE_SECONDS", 0.3)
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
        hub.trouble(Trouble(silent, silent=True, times=100))
        self.fails(hub, StorageSilent, "the Hub cannot be reached (ReadTimeout): run again later")

    def test_a_full_disk(self, hub: FakeHub, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(small_disk))
        with pytest.raises(UsageError, match=r"cannot be written \(No space left on device\): free some space"):
            deliver(HubSink("acme/reviews"), answers("x" * 2_000_000))
        assert [row["output"] for row in rows(hub)] == ["old"]
        assert list(small_disk.iterdir()) == []

    def test_offline_mode(self, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        close_session()
        self.fails(hub, UsageError, "HF_HUB_OFFLINE")
        close_session()


def test_its_settings_survive_json() -> None:
    def refused(value: object, path: Sequence[str], why: str) -> Mapping[str, object]:
        raise AssertionError(why)

    sink = HubSink("acme/{job}", ["text"], split="test", visibility="public", card=False, max_shard_bytes=10)
    form = Writer(refused).kind(SINKS, sink, ["sink"])
    assert form["kind"] == "hub"
    assert SINKS.read(orjson.loads(orjson.dumps(form)), "sink") == sink


def test_placeholders_are_filled_in_for_a_run() -> None:
    sink = HubSink("acme/{job}", ["kept"], split="run_{run}", config="day-{date}")
    assert sink.placeholders == {"run", "date", "job"}
    one = sink.for_run({"run": "7", "date": "2026-01-31", "job": "reviews"})
    assert (one.placeholders, one.keep) == (frozenset(), ("kept",))
    assert one.describe() == "hf://datasets/acme/reviews/day-2026-01-31/run_7-*.parquet"


def test_a_missing_package_is_named_with_the_extra(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["huggingface_hub"] = None
from orchestrator.sinks import HubSink
try:
    HubSink("acme/reviews").check("job")
except Exception as error:
    print(type(error).__name__, error)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == (
        "UsageError acme/reviews needs the package huggingface_hub: pip install 'batch-inference-orchestrator[hub]'\n"
    )
