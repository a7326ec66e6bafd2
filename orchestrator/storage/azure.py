"""Azure Blob Storage and Data Lake Storage."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

from pyarrow.fs import AzureFileSystem

from orchestrator.domain.errors import UsageError
from orchestrator.storage.arrow import ArrowStorage

if TYPE_CHECKING:
    from orchestrator.domain.location import Location


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
    return AzureFileSystem(account, account_key=key, sas_token=signature)
