from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

import pytest

from orchestrator.domain.errors import StorageSilent, UsageError
from orchestrator.domain.location import Location
from orchestrator.storage import contents, delete, exists, fingerprint, opened, storage_of
from orchestrator.testing.assertions import assert_one_line
from tests.s3_service import CUT

if TYPE_CHECKING:
    from tests.s3_service import S3Service

OBJECT = Location("s3://data/in/a.txt")


def test_an_object_is_written_and_read(s3: S3Service) -> None:
    storage_of(OBJECT).put(OBJECT, io.BytesIO(b"hello"))
    assert s3.get("in/a.txt") == b"hello"
    assert [request.method for request in s3.asked] == ["PUT"], "a small object is one request"
    assert contents(OBJECT) == b"hello"
    with opened(OBJECT) as file:
        file.seek(-3, io.SEEK_END)
        assert file.read() == b"llo"


def test_a_large_object_is_one_completed_upload(s3: S3Service) -> None:
    content = bytes(range(256)) * 100_000
    storage_of(OBJECT).put(OBJECT, io.BytesIO(content))
    assert s3.get("in/a.txt") == content
    assert s3.unfinished() == []


def test_a_version_changes_with_the_content_and_is_not_read(s3: S3Service) -> None:
    s3.put("in/a.txt", b"one")
    before = fingerprint(OBJECT)
    assert fingerprint(OBJECT) == before
    s3.put("in/a.txt", b"two")
    assert fingerprint(OBJECT) != before
    assert {request.method for request in s3.asked} == {"HEAD"}


def test_patterns_match_as_they_do_on_a_disk(s3: S3Service) -> None:
    for key in (
        "in/b.jsonl",
        "in/a.jsonl",
        "in/c.txt",
        "in/.hidden.jsonl",
        "in/deep/er/d.jsonl",
        "in/x/",
        "other.jsonl",
    ):
        s3.put(key, b"")
    storage = storage_of(OBJECT)
    assert storage.matches(Location("s3://data/in/*.jsonl")) == ["s3://data/in/a.jsonl", "s3://data/in/b.jsonl"]
    assert storage.matches(Location("s3://data/*/?.jsonl")) == ["s3://data/in/a.jsonl", "s3://data/in/b.jsonl"]
    assert storage.matches(Location("s3://data/in/**/*.jsonl")) == [
        "s3://data/in/a.jsonl",
        "s3://data/in/b.jsonl",
        "s3://data/in/deep/er/d.jsonl",
    ]
    assert storage.matches(Location("s3://data/*.jsonl")) == ["s3://data/other.jsonl"]
    assert storage.matches(Location("s3://data/nothing/*.jsonl")) == []


@pytest.mark.parametrize("key", ["in/a?b=c.jsonl", "in/a&b=c%20d.jsonl", "in/a b+ü#.jsonl", "in/[1].jsonl"])
def test_a_pattern_matches_keys_with_any_characters(s3: S3Service, key: str) -> None:
    s3.put(key, b"hello")
    (found,) = storage_of(OBJECT).matches(Location("s3://data/in/*.jsonl"))
    assert found == f"s3://data/{key}"
    assert contents(found) == b"hello"


def test_an_object_is_deleted_and_deleting_it_again_changes_nothing(s3: S3Service) -> None:
    s3.put("in/a.txt", b"one")
    assert exists(OBJECT)
    delete(OBJECT)
    delete(OBJECT)
    assert not exists(OBJECT)
    assert s3.keys() == set()


def test_an_upload_that_fails_while_its_file_is_read_leaves_the_old_object(s3: S3Service) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 30_000_000:
                raise OSError(5, "Input/output error")
            return super().read(size)

    s3.put("in/a.txt", b"old")
    with pytest.raises(UsageError):
        storage_of(OBJECT).put(OBJECT, Broken(b"x" * 40_000_000))
    assert s3.get("in/a.txt") == b"old"


def test_an_upload_whose_connection_is_cut_leaves_the_old_object_and_the_next_one_cleans_up(
    s3: S3Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put("in/a.txt", b"old")
    s3.put("in/a.txt.other", b"other")
    other = s3.client.create_multipart_upload(Bucket="data", Key="in/a.txt.other")["UploadId"]
    s3.fail = lambda asked: CUT if "partNumber=2" in asked.query else None
    with pytest.raises(StorageSilent) as failure:
        storage_of(OBJECT).put(OBJECT, io.BytesIO(b"x" * 30_000_000))
    assert_one_line(failure, OBJECT)
    assert "the connection was cut" in str(failure.value)
    assert s3.get("in/a.txt") == b"old"
    assert len(s3.unfinished()) == 2
    monkeypatch.setitem(sys.modules, "boto3", None)
    storage_of(OBJECT).abort_unfinished([OBJECT])
    assert [upload["UploadId"] for upload in s3.unfinished()] == [other]


def test_a_request_that_fails_for_a_moment_is_repeated(s3: S3Service) -> None:
    s3.put("in/a.txt", b"hello")
    failures = iter([(503, "SlowDown"), CUT, (500, "InternalError")])
    s3.fail = lambda asked: next(failures, None)
    assert contents(OBJECT) == b"hello"
    failures = iter([(503, "SlowDown"), (500, "InternalError")])
    storage_of(OBJECT).put(OBJECT, io.BytesIO(b"again"))
    assert s3.get("in/a.txt") == b"again"


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (403, "AccessDenied", "access denied"),
        (400, "ExpiredToken", "the credentials have expired"),
        (403, "InvalidAccessKeyId", "the store does not know the credentials"),
        (403, "SignatureDoesNotMatch", "the store does not know the credentials"),
        (404, "NoSuchBucket", "there is no bucket data"),
        (301, "PermanentRedirect", "the bucket is in another region"),
        (400, "AuthorizationHeaderMalformed", "the bucket is in another region"),
    ],
)
def test_a_refusal_is_one_line_that_names_the_remedy(s3: S3Service, status: int, code: str, message: str) -> None:
    s3.fail = lambda asked: (status, code)
    with pytest.raises(UsageError) as failure:
        storage_of(OBJECT).put(OBJECT, io.BytesIO(b"hello"))
    assert_one_line(failure, OBJECT)
    assert message in str(failure.value)
    assert "AKIA" not in str(failure.value)


def test_a_refusal_without_a_reason_names_expired_credentials(s3: S3Service) -> None:
    s3.put("in/a.txt", b"hello")
    s3.fail = lambda asked: (400, "ExpiredToken")  # which an answer to HEAD cannot say
    for use in (opened, storage_of(OBJECT).check_writable):
        with pytest.raises(UsageError, match=r"credentials have expired\): sign in again, or check AWS_PROFILE"):
            use(OBJECT)


def test_what_does_not_exist_is_named(s3: S3Service) -> None:
    with pytest.raises(UsageError, match=r"^s3://data/none.txt does not exist: check the path$"):
        opened(Location("s3://data/none.txt"))
    with pytest.raises(UsageError, match=r"^s3://nowhere/none.txt cannot be read: there is no bucket nowhere: create"):
        opened(Location("s3://nowhere/none.txt"))
    with pytest.raises(UsageError, match="there is no bucket nowhere"):
        storage_of(OBJECT).matches(Location("s3://nowhere/*.txt"))
    with pytest.raises(UsageError, match="cannot be written: there is no bucket nowhere"):
        storage_of(OBJECT).check_writable(Location("s3://nowhere/out.txt"))


def test_a_service_that_is_not_there_is_named(s3: S3Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(StorageSilent, match=r"^s3://data/in/a.txt cannot be read \(connection refused\): check"):
        opened(OBJECT)
