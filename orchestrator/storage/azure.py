"""Azure Blob Storage and Data Lake Storage."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING

from pyarrow.fs import AzureFileSystem

from orchestrator.domain.errors import UsageError
from orchestrator.storage.arrow import ArrowStorage

if TYPE_CHECKING:
    from orchestrator.domain.location import Location

_TRY = "import sys; from pyarrow.fs import AzureFileSystem; AzureFileSystem(sys.argv[1]).get_file_info('none')"
_TRY_SECONDS = 60.0


class Azure(ArrowStorage):
    """`abfs://container@account.dfs.core.windows.net/path`, or `abfs://container/path` with `AZURE_STORAGE_ACCOUNT`.

    Credentials are `AZURE_STORAGE_KEY` or `AZURE_STORAGE_SAS_TOKEN`, or else those that Azure's own tools find.
    """

    def _system(self, location: Location) -> AzureFileSystem:
        return _made(
            account_of(location), os.environ.get("AZURE_STORAGE_KEY"), os.environ.get("AZURE_STORAGE_SAS_TOKEN")
        )

    def _path(self, location: Location) -> str:
        return f"{location.bucket.partition('@')[0]}/{location.key}"


def account_of(location: Location) -> str:
    """Return the storage account. Raises `UsageError` if neither the location nor the environment names one."""
    host = location.bucket.partition("@")[2]
    account = host.partition(".")[0] or os.environ.get("AZURE_STORAGE_ACCOUNT", "")
    if not account:
        raise UsageError(
            f"{location} names no storage account: write abfs://container@account.dfs.core.windows.net/path, "
            "or set AZURE_STORAGE_ACCOUNT"
        )
    return account


@cache
def _made(account: str, key: str | None, signature: str | None) -> AzureFileSystem:
    if key is None and signature is None:
        _check_signed_in(account)
    return AzureFileSystem(account, account_key=key, sas_token=signature)


def _check_signed_in(account: str) -> None:
    """Raise `OSError` if Azure's library finds no credentials. It aborts its process then, so a child asks it first."""
    try:
        asked = subprocess.run(
            [sys.executable, "-c", _TRY, account],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TRY_SECONDS,
        )
    except subprocess.TimeoutExpired as silence:
        raise TimeoutError("timed out while looking for credentials") from silence
    if asked.returncode < 0:
        raise OSError("DefaultAzureCredential found no credentials")
