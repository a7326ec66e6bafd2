"""What Google's and Azure's stores say, as Arrow reports it, and how a location names an account."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.domain.errors import StorageSilent, UsageError
from orchestrator.domain.location import Location
from orchestrator.storage.azure import Azure, account_of
from orchestrator.storage.failures import unusable, without_keys

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("location", "text", "message"),
    [
        ("gs://b/a", "google::cloud::Status(NOT_FOUND: The specified bucket does not exist.)", "there is no bucket b"),
        (
            "gs://b/a",
            "google::cloud::Status(PERMISSION_DENIED: x does not have access)",
            "GOOGLE_APPLICATION_CREDENTIALS",
        ),
        ("gs://b/a", "google::cloud::Status(UNAUTHENTICATED: Invalid Credentials)", "does not know the credentials"),
        ("gs://b/a", "Could not create a OAuth2 access token to authenticate the request.", "there are no credentials"),
        (
            "abfs://c@a.dfs.core.windows.net/x",
            "404 The specified container does not exist. ContainerNotFound",
            "no bucket c",
        ),
        (
            "abfs://c@a.dfs.core.windows.net/x",
            "Azure Error: [AuthorizationFailure] 403 This request is",
            "access denied",
        ),
        ("abfs://c@a.dfs.core.windows.net/x", "DefaultAzureCredential: Failed to get token", "AZURE_CLIENT_ID"),
        (
            "s3://b/a",
            "AWS Error EXPIRED_TOKEN during PutObject operation: no (Request ID: x)",
            "credentials have expired",
        ),
        ("https://h/a", "<urlopen error [SSL: CERTIFICATE_VERIFY_FAILED] self-signed>", "certificate is not trusted"),
        ("s3://b/a", "something new\nwith lines (Request ID: 17)", "(something new)"),
    ],
)
def test_each_is_one_line_with_the_location_and_a_remedy(location: str, text: str, message: str) -> None:
    told = str(unusable(Location(location), "read", OSError(text)))
    assert told.startswith(location)
    assert message in told
    assert ": " in told.removeprefix(location)
    assert "\n" not in told


def test_the_query_of_an_address_is_not_shown_because_it_holds_azures_signature() -> None:
    text = "GetProperties failed for 'https://a.dfs.core.windows.net/c/x?se=2030&sig=hunter2%3D'. Error: [Odd] 409"
    failure = OSError(text)
    told = str(unusable(Location("abfs://c@a.dfs.core.windows.net/x"), "read", failure))
    assert "hunter2" not in told
    assert "[Odd] 409" in told
    assert "hunter2" not in str(without_keys(failure))


def test_the_name_of_an_object_is_not_taken_for_a_cause() -> None:
    failure = OSError("When reading 'in/500/403.jsonl': AWS Error UNKNOWN during HeadObject: odd")
    assert "403.jsonl cannot be read (When reading" in str(
        unusable(Location("s3://b/in/500/403.jsonl"), "read", failure)
    )


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("AWS Error SLOW_DOWN during GetObject", StorageSilent),
        ("AWS Error NO_SUCH_UPLOAD during UploadPart: The specified upload does not exist", StorageSilent),
        ("AWS Error NETWORK_CONNECTION: curlCode: 7, Couldn't connect to server", StorageSilent),
        ("AWS Error NETWORK_CONNECTION: curlCode: 6, Couldn't resolve host name", StorageSilent),
        ("google::cloud::Status(RESOURCE_EXHAUSTED: too many requests)", StorageSilent),
        ("HTTP Error 429: Too Many Requests", StorageSilent),
        ("HTTP Error 500: Internal Server Error", StorageSilent),
        ("AWS Error NETWORK_CONNECTION: curlCode: 60, SSL peer certificate was not OK", UsageError),
        ("AWS Error ACCESS_DENIED during GetObject", UsageError),
        ("HTTP Error 418: I'm a teapot", UsageError),
    ],
)
def test_only_what_may_pass_by_itself_lets_a_queued_run_try_again(text: str, kind: type[Exception]) -> None:
    assert type(unusable(Location("s3://b/a"), "read", OSError(text))) is kind


def test_the_account_is_in_the_location_or_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT", raising=False)
    assert account_of(Location("abfs://c@mine.dfs.core.windows.net/x")) == "mine"
    with pytest.raises(UsageError, match="names no storage account: write abfs://container@account"):
        account_of(Location("abfs://c/x"))
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "other")
    assert account_of(Location("abfs://c/x")) == "other"


def test_azures_library_which_aborts_without_credentials_is_asked_in_a_child_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    aborts = tmp_path / "python"
    aborts.write_text("#!/bin/sh\nkill -ABRT $$\n")
    aborts.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(aborts))
    with pytest.raises(UsageError, match=r"there are no credentials.*AZURE_STORAGE_KEY"):
        Azure().stat(Location("abfs://c@nobody.dfs.core.windows.net/x"))
