"""The fake Hub is what `huggingface_hub`, `datasets`, pandas and polars take it for."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.hub_server import FakeHub, Trouble, fake_hub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.unmeasured

_HEAD = """
import io, json, sys
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, HfFileSystem, hf_hub_download
from huggingface_hub.errors import *
api, fs, answer = HfApi(), HfFileSystem(), None
"""


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with fake_hub(page_size=2) as hub:
        yield hub


def use(hub: FakeHub, home: Path, script: str, *, token: str | None = None, xet: bool = False) -> Any:
    """Execute a client's script in a process of its own; return what it leaves in `answer`."""
    code = f"{_HEAD}\n{script}\nprint('\\n' + json.dumps(answer))"
    environment = hub.environment(home, token=token, xet=xet)
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=home, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout.splitlines()[-1])


def test_a_repo_is_made_written_listed_and_read(hub: FakeHub, tmp_path: Path) -> None:
    script = """
api.create_repo("acme/one", repo_type="dataset", visibility="private")
api.create_repo("acme/one", repo_type="dataset", exist_ok=True)
api.upload_file(path_or_fileobj=b"old", path_in_repo="a.txt", repo_id="acme/one", repo_type="dataset")
import pathlib
for number in range(5):
    pathlib.Path(f"up/data/{number}.parquet").parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(f"up/data/{number}.parquet").write_bytes(b"PAR1" + bytes([number]))
pathlib.Path("up/README.md").write_text("---\\ntags: [x]\\n---\\nhello")
api.upload_folder(repo_id="acme/one", repo_type="dataset", folder_path="up")
with fs.open("datasets/acme/one/data/3.parquet") as file:
    file.seek(4)
    last = file.read(1)[0]
answer = {
    "who": api.whoami()["name"],
    "ls": fs.ls("datasets/acme/one", detail=False),
    "glob": fs.glob("datasets/acme/one/**/*.parquet"),
    "last": last,
    "downloaded": open(hf_hub_download("acme/one", "data/4.parquet", repo_type="dataset"), "rb").read()[4],
    "files": sorted(api.list_repo_files("acme/one", repo_type="dataset")),
    "commits": [commit.title for commit in api.list_repo_commits("acme/one", repo_type="dataset")],
}
"""
    answer = use(hub, tmp_path, script)
    shards = [f"data/{number}.parquet" for number in range(5)]
    assert answer == {
        "who": "acme",
        "ls": [f"datasets/acme/one/{name}" for name in (".gitattributes", "README.md", "a.txt", "data")],
        "glob": [f"datasets/acme/one/{shard}" for shard in shards],
        "last": 3,
        "downloaded": 4,
        "files": [".gitattributes", "README.md", "a.txt", *shards],
        "commits": ["Upload folder using huggingface_hub", "Upload a.txt with huggingface_hub", "initial commit"],
    }
    assert hub.dataset("acme/one").visibility == "private"
    assert hub.dataset("acme/one").files["a.txt"] == b"old"
    stored = [request for request in hub.requests if request.storage]
    assert stored
    assert {request.token for request in stored} == {None}, "the token is for the Hub's own origin"


def test_a_commit_whose_parent_is_not_the_head_is_refused_whole(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("acme/one", {"a.txt": b"a"})
    script = """
head = api.dataset_info("acme/one").sha
operations = [CommitOperationAdd("b.txt", b"b"), CommitOperationDelete("a.txt")]
api.create_commit("acme/one", operations, commit_message="first", repo_type="dataset", parent_commit=head)
try:
    operations = [CommitOperationAdd("c.txt", b"c")]
    api.create_commit("acme/one", operations, commit_message="second", repo_type="dataset", parent_commit=head)
except HfHubHTTPError as error:
    answer = error.response.status_code
"""
    assert use(hub, tmp_path, script) == 412
    assert set(hub.dataset("acme/one").files) == {".gitattributes", "b.txt"}


def test_branches_tags_and_commits_are_revisions(hub: FakeHub, tmp_path: Path) -> None:
    old = hub.add("acme/one", {"a.txt": b"old"}).commits[-1].oid
    script = f"""
api.create_branch("acme/one", repo_type="dataset", branch="side")
api.create_tag("acme/one", repo_type="dataset", tag="v1")
api.upload_file(path_or_fileobj=b"new", path_in_repo="a.txt", repo_id="acme/one", repo_type="dataset")
refs = api.list_repo_refs("acme/one", repo_type="dataset")
answer = [fs.cat_file(f"datasets/acme/one@{{name}}/a.txt").decode() for name in ("main", "side", "v1", "{old}")]
answer += [sorted(ref.name for ref in refs.branches), [ref.name for ref in refs.tags]]
try:
    api.dataset_info("acme/one", revision="missing")
except RevisionNotFoundError:
    answer.append("no such revision")
"""
    expected = ["new", "old", "old", "old", ["main", "side"], ["v1"], "no such revision"]
    assert use(hub, tmp_path, script) == expected


def test_what_may_not_be_done_is_refused_with_the_errors_of_the_hub(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("acme/open", {"a.txt": b"a"})
    hub.add("acme/hidden", {"a.txt": b"a"}, visibility="private")
    hub.add("acme/gated", {"a.txt": b"a"}, gated=True)
    hub.grant("hf_stranger", "bob", "bob")
    script = """
answer = []
def attempt(act):
    try:
        act()
    except HfHubHTTPError as error:
        answer.append([type(error).__name__, error.response.status_code])
attempt(lambda: api.dataset_info("acme/none"))
attempt(lambda: api.dataset_info("acme/hidden"))
attempt(lambda: hf_hub_download("acme/open", "none.txt", repo_type="dataset"))
attempt(lambda: hf_hub_download("acme/gated", "a.txt", repo_type="dataset"))
attempt(lambda: api.create_repo("acme/new", repo_type="dataset"))
attempt(lambda: api.upload_file(path_or_fileobj=b"", path_in_repo="b", repo_id="acme/open", repo_type="dataset"))
attempt(lambda: api.bucket_info("acme/none"))
attempt(lambda: HfApi(token="hf_revoked").whoami())
"""
    assert use(hub, tmp_path, script, token="hf_stranger") == [
        ["RepositoryNotFoundError", 404],
        ["RepositoryNotFoundError", 404],
        ["RemoteEntryNotFoundError", 404],
        ["GatedRepoError", 403],
        ["HfHubHTTPError", 403],
        ["HfHubHTTPError", 403],
        ["BucketNotFoundError", 404],
        ["HfHubHTTPError", 401],
    ]


def test_a_card_whose_head_is_not_yaml_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("acme/one")
    script = """
try:
    card = b"---\\na: [\\n---\\n"
    api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id="acme/one", repo_type="dataset")
except ValueError as error:
    answer = str(error).splitlines()[0]
"""
    assert use(hub, tmp_path, script).startswith("Invalid metadata in README.md")
    assert "README.md" not in hub.dataset("acme/one").files


def test_trouble_strikes_as_often_as_ordered(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("acme/one", {"a.bin": b"a" * 100})
    moved = Trouble("POST .*/commit/", meanwhile=lambda: hub.push("acme/one", {"theirs.txt": b"x"}))
    hub.trouble(Trouble("PUT /lfs/", cut=10), Trouble("GET .*/resolve/", status=500), moved)
    script = """
head = api.dataset_info("acme/one").sha
assert fs.cat_file("datasets/acme/one/a.bin") == b"a" * 100
try:
    operations = [CommitOperationAdd("b.bin", b"b" * 100_000)]
    api.create_commit("acme/one", operations, commit_message="mine", repo_type="dataset", parent_commit=head)
except HfHubHTTPError as error:
    answer = error.response.status_code
"""
    assert use(hub, tmp_path, script) == 412
    assert len(hub.seen("PUT /lfs/")) == 2
    assert set(hub.dataset("acme/one").files) == {".gitattributes", "a.bin", "theirs.txt"}


def test_buckets_are_written_by_xet_and_read_by_http(hub: FakeHub, tmp_path: Path) -> None:
    """So are LFS files of repos: incompressible, compressible and grouped chunks come back byte for byte."""
    script = """
import os, struct
contents = {
    "x/text.txt": b"some text " * 100_000,
    "x/noise.bin": os.urandom(300_000),
    "floats.bin": b"".join(struct.pack("<f", number / 7) for number in range(100_000)),
}
api.create_bucket("acme/scratch", private=True)
api.batch_bucket_files("acme/scratch", add=[(data, path) for path, data in contents.items()])
api.create_repo("acme/one", repo_type="dataset")
open("noise.bin", "wb").write(contents["x/noise.bin"])
api.upload_file(path_or_fileobj="noise.bin", path_in_repo="noise.bin", repo_id="acme/one", repo_type="dataset")
with fs.open("buckets/acme/scratch/late.txt", "wb") as file:
    file.write(b"late")
same = [fs.cat_file(f"buckets/acme/scratch/{path}") == data for path, data in contents.items()]
same.append(fs.cat_file("datasets/acme/one/noise.bin") == contents["x/noise.bin"])
text = next(file for file in api.list_bucket_tree("acme/scratch", recursive=True) if file.path == "x/text.txt")
copy = ("bucket", "acme/scratch", text.xet_hash, "copy.txt")
api.batch_bucket_files("acme/scratch", copy=[copy], delete=["floats.bin"])
fs.invalidate_cache()
answer = [same, fs.find("buckets/acme/scratch"), fs.cat_file("buckets/acme/scratch/copy.txt") == contents["x/text.txt"]]
"""
    files = ["copy.txt", "late.txt", "x/noise.bin", "x/text.txt"]
    expected = [[True] * 4, [f"buckets/acme/scratch/{name}" for name in files], True]
    assert use(hub, tmp_path, script, xet=True) == expected
    assert hub.buckets["acme/scratch"].visibility == "private"


def test_what_datasets_pushes_is_loaded_by_datasets_pandas_polars_and_duckdb(hub: FakeHub, tmp_path: Path) -> None:
    script = """
import datasets, duckdb, pandas, polars
datasets.disable_progress_bars()
rows = [{"id": "a", "output": {"label": "x", "score": 0.5}}, {"id": "b", "output": {"label": "y", "score": 0.25}}]
datasets.Dataset.from_list(rows).push_to_hub("acme/pushed")
path = "hf://datasets/acme/pushed/data/train-00000-of-00001.parquet"
database = duckdb.connect()
database.register_filesystem(HfFileSystem(expand_info=True))
with fs.open(path) as file:  # polars itself asks huggingface.co, whatever HF_ENDPOINT is
    by_polars = polars.read_parquet(file).to_dicts()
answer = [
    datasets.load_dataset("acme/pushed", split="train").to_list() == rows,
    list(datasets.load_dataset("acme/pushed", split="train", streaming=True)) == rows,
    pandas.read_parquet(path).to_dict("records") == rows,
    by_polars == rows,
    database.sql(f"from read_parquet('{path}')").to_arrow_table().to_pylist() == rows,
]
"""
    assert use(hub, tmp_path, script) == [True] * 5
