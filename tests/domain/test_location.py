from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.domain.errors import UsageError
from orchestrator.domain.location import Location, is_location, target_of


def test_the_parts_of_a_location() -> None:
    location = Location("s3://bucket/year=2024/in.jsonl.gz")
    assert (location.scheme, location.bucket, location.key) == ("s3", "bucket", "year=2024/in.jsonl.gz")
    assert (location.name, location.stem, location.suffix, location.folders) == (
        "in.jsonl.gz",
        "in.jsonl",
        ".gz",
        ("year=2024",),
    )
    assert location.with_name("out.csv") == "s3://bucket/year=2024/out.csv"
    assert Location("https://host/a%20b.csv?version=2#top").name == "a b.csv"


def test_a_path_that_has_lost_a_slash_is_the_same_location() -> None:
    assert Location(Path("s3://bucket/a.jsonl")) == Location("S3://bucket/a.jsonl") == "s3://bucket/a.jsonl"


@pytest.mark.parametrize(
    "text", ["in.jsonl", "/s3/in.jsonl", "notes:1.jsonl", "file:///in.jsonl", "s3:in.jsonl", "C:/in"]
)
def test_what_is_not_a_location(text: str) -> None:
    assert not is_location(text)


def test_a_target_is_a_location_or_a_path() -> None:
    assert isinstance(target_of("gs://bucket/a"), Location)
    assert target_of("a/b.jsonl") == Path("a/b.jsonl")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("ftp://u:hunter2@h/x?sig=hunter2", "ftp:// is not supported (ftp://***@h/x): give a path on this machine"),
        ("s3a://AKIA:hunter2@b/x", "s3a:// is not supported (s3a://***@b/x): write s3://"),
        ("gcs://b/x", "gcs:// is not supported (gcs://b/x): write gs://"),
        ("az://container/x", "az:// is not supported (az://container/x): write abfs://"),
        ("gs:b/x", "gs:b/x is not a location: write gs:// and a name"),
        ("hf:///x", "hf:///x is not a location: write hf:// and a name"),
        ("ftp://hunter2@h/x", "ftp:// is not supported (ftp://***@h/x): give a path on this machine"),
    ],
)
def test_another_scheme_is_refused_without_showing_a_password(text: str, line: str) -> None:
    with pytest.raises(UsageError) as failure:
        target_of(text)
    assert str(failure.value) == line


@pytest.mark.parametrize(
    "text",
    [
        "s3://AKIA:hunter2@bucket/in.jsonl",
        "s3://bucket/in.jsonl?access_key=hunter2",
        "s3://bucket/in.jsonl?region=x&secret_key=hunter2",
        "https://user:hunter2@host/in.jsonl",
        "https://hunter2@host/in.jsonl",
        "https://host/in.jsonl?X-Amz-Signature=hunter2",
        "https://account.blob.core.windows.net/c/in.jsonl?sv=1&sig=hunter2",
        "abfs://container:hunter2@account.dfs.core.windows.net/in.jsonl",
    ],
)
def test_a_location_with_a_key_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(UsageError, match="which would be stored") as failure:
        Location(text)
    assert "hunter2" not in str(failure.value)
    assert "\n" not in str(failure.value)


def test_a_setting_in_a_location_is_refused_and_a_wildcard_is_not() -> None:
    with pytest.raises(UsageError, match="set the environment variables"):
        Location("s3://bucket/in.jsonl?region=eu-west-1")
    assert Location("s3://bucket/in-?.jsonl").is_pattern
    assert not Location("https://host/in.jsonl?a=b").is_pattern
    assert Location("abfs://container@account.dfs.core.windows.net/in.jsonl").bucket.startswith("container@")


def test_what_a_location_covers() -> None:
    assert Location("s3://b/in/*.jsonl").covers(Location("s3://b/in/a.jsonl"))
    assert not Location("s3://b/in/*.jsonl").covers(Location("s3://other/in/a.jsonl"))
    assert Location("s3://b/in/").covers(Location("s3://b/in/deep/a.jsonl"))
    assert Location("s3://b/a.jsonl").covers(Location("s3://b/a.jsonl"))
    assert not Location("s3://b/a.jsonl").covers(Location("gs://b/a.jsonl"))


@pytest.mark.parametrize("bucket", ["abfs://c@a.dfs.core.windows.net", "abfss://c@a.blob.core.windows.net", "abfs://c"])
def test_a_container_of_azure_is_known_by_each_of_its_names(bucket: str) -> None:
    location = Location("abfs://c@a.dfs.core.windows.net/in/*")
    assert location.covers(Location(f"{bucket}/in/x"))
    assert not location.covers(Location("abfs://c@other.dfs.core.windows.net/in/x"))
    assert not location.covers(Location("abfs://other/in/x"))
