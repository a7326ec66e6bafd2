"""Amazon S3 and what speaks its protocol (`AWS_ENDPOINT_URL`)."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem, resolve_s3_region

from orchestrator.domain.proxies import proxy_for
from orchestrator.storage.arrow import ArrowStorage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.domain.location import Location

_ATTEMPTS = 5
_CONNECT_SECONDS = 10.0
_SILENCE_SECONDS = 60.0  # Arrow's own limit of 3 s cuts uploads on a busy machine


class S3(ArrowStorage):
    """Credentials, region and endpoint come from AWS's environment variables, profiles and instance metadata."""

    def _system(self, location: Location) -> pa.fs.FileSystem:
        endpoint = _endpoint()
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        if region is None and endpoint is None:
            region = _region_of(location.bucket)
        proxy = proxy_for(endpoint or "https://s3.amazonaws.com", os.environ)
        return _made(endpoint, region, proxy, os.environ.get("AWS_CA_BUNDLE"))

    def abort_unfinished(self, locations: Sequence[Location]) -> None:
        """Abort unfinished uploads to exactly these keys, if botocore is installed: Arrow cannot list them."""
        if find_spec("botocore") is None:
            return
        session, failures = import_module("botocore.session").Session(), import_module("botocore.exceptions")
        with suppress(failures.BotoCoreError, failures.ClientError):  # it costs storage, but no delivery fails for it
            client = session.create_client("s3", endpoint_url=_endpoint(), region_name=os.environ.get("AWS_REGION"))
            for location in locations:
                _abort(client, location)


def _abort(client: Any, location: Location) -> None:
    bucket, key = location.bucket, location.key
    found = client.list_multipart_uploads(Bucket=bucket, Prefix=key).get("Uploads", ())
    for upload in found:
        if upload["Key"] == key:
            client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload["UploadId"])


def _endpoint() -> str | None:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


@cache
def _made(endpoint: str | None, region: str | None, proxy: str | None, authorities: str | None) -> S3FileSystem:
    scheme, _, host = (endpoint or "https://").partition("://")
    return S3FileSystem(
        region=region,
        scheme=scheme,
        endpoint_override=host.rstrip("/") or None,
        connect_timeout=_CONNECT_SECONDS,
        request_timeout=_SILENCE_SECONDS,
        proxy_options=proxy,
        tls_ca_file_path=authorities,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
        background_writes=False,  # otherwise all parts that wait for a slow network are in memory
        allow_delayed_open=True,  # so that a small object is one request
    )


@cache
def _region_of(bucket: str) -> str | None:
    """Return the bucket's region, which anybody may ask for."""
    try:
        return str(resolve_s3_region(bucket))
    except (OSError, pa.ArrowException):  # the request that follows says what is wrong
        return None
