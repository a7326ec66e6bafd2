"""Google Cloud Storage."""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING

from pyarrow.fs import GcsFileSystem

from orchestrator.storage.arrow import ArrowStorage

if TYPE_CHECKING:
    from orchestrator.domain.location import Location

_RETRY_FOR = timedelta(seconds=30)  # without a network, nothing is said for as long


class Gcs(ArrowStorage):
    """Credentials are Google's application default credentials, such as `GOOGLE_APPLICATION_CREDENTIALS`."""

    def _system(self, location: Location) -> GcsFileSystem:
        return _made()


@cache
def _made() -> GcsFileSystem:
    return GcsFileSystem(retry_time_limit=_RETRY_FOR)
