from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest

from orchestrator.domain.errors import StorageSilent, UsageError
from orchestrator.domain.location import Location
from orchestrator.sources import JsonlSource
from orchestrator.storage import contents, fingerprint, opened, storage_of
from orchestrator.testing.assertions import assert_one_line
from tests.web_service import WebService, web_service

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def web() -> Iterator[WebService]:
    with web_service() as service:
        yield service


def test_ranges_are_read(web: WebService) -> None:
    location = Location(web.put("/a.bin", bytes(range(200))))
    with storage_of(location).open(location) as file:
        file.seek(-10, io.SEEK_END)
        assert file.read(4) == bytes(range(190, 194))
        file.seek(5)
        assert file.read(2) == bytes([5, 6])
    assert web.asked == [
        ("HEAD", "/a.bin", ""),
        ("GET", "/a.bin", "bytes=190-193"),
        ("GET", "/a.bin", "bytes=5-6"),
    ]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("ranges", False), ("lengths", False), ("heads", False), ("tags", False), ("zero", True), ("shifts", True)],
)
def test_servers_that_offer_less_are_read_too(web: WebService, setting: str, value: object) -> None:
    setattr(web, setting, value)
    content = bytes(range(256)) * 10
    location = Location(web.put("/a.bin", content))
    with opened(location) as file:
        assert file.read(100) == content[:100]
        file.seek(-100, io.SEEK_END)
        assert file.read() == content[-100:]


@pytest.mark.parametrize("name", ["a b.txt", "a%20b.txt", "ü€.txt", "a%2Bb+c.txt", "a.txt?q=ü b", "a.txt#top"])
def test_addresses_may_have_spaces_and_any_characters(web: WebService, name: str) -> None:
    web.put(f"/{unquote(name).partition('?')[0].partition('#')[0]}", b"hello")
    assert contents(Location(f"{web.url}/{name}")) == b"hello"


@pytest.mark.parametrize("host", ["[::1", "a..b", "host:abc", "a" * 70 + ".com"])
def test_an_impossible_host_is_one_line(host: str) -> None:
    with pytest.raises(UsageError, match=r"is not the address of a file: check its host and port$") as failure:
        opened(Location(f"http://{host}/a.jsonl"))
    assert_one_line(failure, f"http://{host}/a.jsonl")


def test_a_server_that_asks_to_wait_lets_a_queued_run_try_again(web: WebService) -> None:
    web.refuses["/a.jsonl"] = 429
    with pytest.raises(StorageSilent):
        opened(Location(f"{web.url}/a.jsonl"))


def test_a_redirect_is_followed(web: WebService) -> None:
    web.put("/a.bin", b"hello")
    assert contents(Location(f"{web.url}/moved/a.bin")) == b"hello"


def test_a_full_disk_for_the_copy_is_one_line(web: WebService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.storage.web.TemporaryFile", partial(Path("/dev/full").open, "r+b", buffering=0))
    web.ranges = False
    location = Location(web.put("/a.bin", b"x" * 100))
    with opened(location) as file, pytest.raises(UsageError, match="No space left on device") as failure:
        file.read(1)
    assert_one_line(failure, location)
    assert "TMPDIR" in str(failure.value)


def test_a_connection_that_is_cut_is_made_again(web: WebService) -> None:
    location = Location(web.put("/a.bin", b"hello"))
    web.cuts = 2
    assert contents(location) == b"hello"
    web.ranges, web.cuts = False, 1
    assert contents(location) == b"hello"


def test_a_connection_that_is_always_cut_is_one_line(web: WebService) -> None:
    location = Location(web.put("/a.bin", b"hello"))
    web.cuts = 1000
    with pytest.raises(StorageSilent) as failure:
        contents(location)
    assert_one_line(failure, location)
    assert "the connection was cut" in str(failure.value)


@pytest.mark.parametrize(
    ("status", "message"), [(404, "does not exist"), (403, "access denied"), (401, "access denied")]
)
def test_a_refusal_is_one_line(web: WebService, status: int, message: str) -> None:
    web.refuses["/a.jsonl"] = status
    with pytest.raises(UsageError) as failure, JsonlSource(f"{web.url}/a.jsonl").rows() as rows:
        list(rows)
    assert_one_line(failure, f"{web.url}/a.jsonl")
    assert message in str(failure.value)


def test_a_host_that_cannot_be_reached_is_named() -> None:
    with pytest.raises(StorageSilent, match=r"^http://127.0.0.1:1/a cannot be read \(connection refused\): check"):
        opened(Location("http://127.0.0.1:1/a"))
    with pytest.raises(StorageSilent, match="the host's name cannot be resolved"):
        opened(Location("https://no-such-host.invalid/a"))


def test_the_fingerprint_is_the_entity_tag_or_else_a_hash(web: WebService) -> None:
    location = Location(web.put("/a.bin", b"one"))
    before = fingerprint(location)
    assert [method for method, *_ in web.asked] == ["HEAD"]
    web.put("/a.bin", b"two")
    assert fingerprint(location) != before
    web.tags = False
    other = fingerprint(location)
    web.put("/a.bin", b"one")
    assert fingerprint(location) not in {other, before}


def test_a_file_that_changes_while_it_is_read_is_refused(web: WebService) -> None:
    location = Location(web.put("/a.bin", b"one"))
    with storage_of(location).open(location) as file:
        web.put("/a.bin", b"two")
        with pytest.raises(UsageError, match="changed while it was read"):
            file.read()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_that_changes_between_two_ranges_is_refused(web: WebService, ranges: bool) -> None:
    location = Location(web.put("/a.bin", b"x" * 100))
    with storage_of(location).open(location) as file:
        assert file.read(10) == b"x" * 10
        web.put("/a.bin", b"y" * (5 if ranges else 100))
        web.ranges = ranges
        with pytest.raises(UsageError, match=r"a.bin changed while it was read: run again"):
            file.read()


def test_nothing_is_written_to_a_web_server(web: WebService) -> None:
    location = Location(f"{web.url}/out.jsonl")
    with pytest.raises(UsageError, match=r"cannot be written \(http:// is only read\)"):
        storage_of(location).put(location, io.BytesIO(b""))
