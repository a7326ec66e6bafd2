"""Why an object cannot be read or written, in one line with the remedy. Stores' own texts are recognized only here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from orchestrator.domain.errors import StorageSilent, UsageError

if TYPE_CHECKING:
    from orchestrator.domain.location import Location

_CREDENTIALS = {
    "s3": "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "abfs": "AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET, or AZURE_STORAGE_KEY",
}
_CREDENTIALS["abfss"] = _CREDENTIALS["abfs"]
_CAUSES = {
    "bucket": r"NO_SUCH_BUCKET|NoSuchBucket|no such bucket|ContainerNotFound|bucket does not exist",
    "expired": r"EXPIRED_TOKEN|ExpiredToken|token (has|is) expired|invalid_grant|RequestExpired",
    "wrong": r"INVALID_(ACCESS_KEY_ID|CLIENT_TOKEN_ID|SIGNATURE|TOKEN)|SIGNATURE_DOES_NOT_MATCH|InvalidAccessKeyId"
    r"|SignatureDoesNotMatch|AuthenticationFailed|UNAUTHENTICATED",
    "none": r"[Cc]ould not find .*credentials|DefaultAzureCredential|Could not create a OAuth2|NO_CREDENTIALS",
    "denied": r"ACCESS_DENIED|AccessDenied|PERMISSION_DENIED|[Pp]ermission denied|Authorization(Failure|Permission)"
    r"|\b40[13]\b",
    "region": r"PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocationConstraint|\b301\b|correct region",
    "aborted": r"NO_SUCH_UPLOAD|NoSuchUpload",
    "missing": r"NO_SUCH_KEY|NoSuchKey|BlobNotFound|does not exist|No such file|HTTP Error 4(04|10)",
    "name": r"curlCode: 6\b|[Cc]ould not resolve|Name or service not known|nodename nor servname",
    "certificate": r"CERTIFICATE_VERIFY_FAILED|curlCode: (35|51|60)\b",
    "refused": r"curlCode: 7\b|[Cc]onnection refused|[Cc]ould not connect",
    "cut": r"curlCode|NETWORK_CONNECTION|[Cc]onnection reset|IncompleteRead|Remote end closed|[Tt]imed? ?out|SLOW_DOWN"
    r"|TooManyRequests|RESOURCE_EXHAUSTED|UNAVAILABLE|INTERNAL_FAILURE|HTTP Error 4(08|25|29)|\b50[0234]\b",
    "unsaid": r"during Head\w+ operation: No response body",  # S3 answers HEAD with 400 when a token has expired
}  # the first that matches
_MAY_PASS = frozenset({"aborted", "name", "refused", "cut"})  # the network, or the store, may be down for now
_LINES = {
    "bucket": "{cannot}: there is no bucket {bucket}: create it, or check its name",
    "expired": "{cannot} (the credentials have expired): sign in again, or set new ones ({variables})",
    "wrong": "{cannot} (the store does not know the credentials, or the key is wrong): check {variables}",
    "none": "{cannot} (there are no credentials): set {variables}",
    "denied": "{cannot} (access denied): check the credentials ({variables}) and what they are allowed to do there",
    "region": "{cannot} (the bucket is in another region): set AWS_REGION to the bucket's region",
    "aborted": "{cannot} (its upload was aborted, perhaps by another delivery to the same key): run again later",
    "missing": "{location} does not exist: check the path",
    "name": "{cannot} (the host's name cannot be resolved): check the network and the address, and run again",
    "certificate": "{cannot} (the host's certificate is not trusted): set SSL_CERT_FILE or AWS_CA_BUNDLE",
    "refused": "{cannot} (connection refused): check the network and the address, and run again",
    "cut": "{cannot} (the connection was cut, or the store does not answer): run again later",
    "unsaid": "{cannot} (the store gives no reason, as when credentials have expired): sign in again, or check "
    "{variables} and AWS_REGION",
    "web": "{cannot} (access denied): give an address that needs no credentials, or copy the file to this machine",
    "other": "{cannot} ({text}): check the path, and run again",
}
_NOISE = re.compile(r" ?\((Request ID|HTTP status)[^)]*\)|\[errno -?\d+\] ?|Detail: .*", re.IGNORECASE)
_NAME = re.compile(r"'[^']*'")  # of an object, which may be called 403
_KEYS = re.compile(r"(?<=//)[^/\s@]*@|\?[^\s'\"]*")  # Azure's text names the URL, and its query is the signature


def unusable(
    location: Location, verb: str, failure: BaseException, *, bucket: str | None = None
) -> UsageError | StorageSilent:
    """Return the failure as one line that names the location and the remedy. `verb`: read or written.

    `StorageSilent` if a later try may succeed as it is.
    """
    if isinstance(failure, UsageError | StorageSilent):
        return failure
    text = _KEYS.sub("", str(failure))
    said = _NAME.sub("", text)
    cause = next((cause for cause, pattern in _CAUSES.items() if re.search(pattern, said)), "other")
    if cause == "denied" and location.scheme not in _CREDENTIALS:
        cause = "web"
    line = _LINES[cause].format(
        cannot=f"{location} cannot be {verb}",
        location=location,
        bucket=bucket or location.bucket,
        variables=_CREDENTIALS.get(location.scheme),
        text=_NOISE.sub("", text.partition("\n")[0]).strip().rstrip(".")[:300],
    )
    return StorageSilent(line) if cause in _MAY_PASS else UsageError(line)


def without_keys(failure: Exception) -> Exception:
    """Return the failure, or one without the queries of URLs in its text, because a traceback shows the cause."""
    text = str(failure)
    masked = _KEYS.sub("", text)
    return failure if masked == text else OSError(masked)


def changed(location: Location) -> UsageError:
    """Return the failure of reading an object that was replaced meanwhile."""
    return UsageError(f"{location} changed while it was read: run again when it is complete")
