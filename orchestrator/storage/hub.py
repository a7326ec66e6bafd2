"""The Hugging Face Hub through `huggingface_hub`, an optional package: its client, and what its failures mean.

This is the only place that imports `huggingface_hub`, an optional package, and knows its errors. `storage/hf.py`
reads files by range itself, because the package's file system keeps listings and reads ahead; what it has listed or
versioned at a commit is read at that commit.
"""

from __future__ import annotations

import logging
import os
import re
from contextlib import contextmanager
from importlib import import_module
from json import JSONDecodeError
from typing import TYPE_CHECKING, Any

from orchestrator.domain.errors import StorageSilent, UsageError
from orchestrator.domain.phrases import duration
from orchestrator.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

_SILENCE_SECONDS = 60.0  # as in other stores; the package itself waits for ever
_LONGEST_WAIT = 300  # seconds: the Hub counts requests in windows of five minutes
_LOGIN = "set the environment variable HF_TOKEN, or run `hf auth login`"
_CLIENT = logging.getLogger("huggingface_hub.utils._http")  # it logs every request that it repeats
_QUERY = re.compile(r"\?[^\s'\"]+")
_REFUSED = "Invalid credentials"  # the Hub's words if a token is not valid; it also answers 401 without a token


class _LongWait(Exception):
    """The Hub asks us to come back much later."""


def hub_package(what: str, module: str = "") -> ModuleType:
    """Return `huggingface_hub`, or one of its modules. Raises `UsageError` if it is not installed."""
    _CLIENT.addFilter(_without_signatures)  # once, however often
    try:
        return import_module(f"huggingface_hub{module}")
    except ModuleNotFoundError as failure:
        raise UsageError(
            f"{what} needs the package huggingface_hub: pip install 'batch-inference-orchestrator[hub]'"
        ) from failure


def _without_signatures(record: logging.LogRecord) -> bool:
    """Mask the queries of URLs in a log record: the address of an upload is signed."""
    record.msg, record.args = _QUERY.sub("?***", record.getMessage()), ()
    return True


def hub_client(what: str) -> Any:
    """Return a client (`HfApi`). It finds the token where every tool finds it, and the Hub through `HF_ENDPOINT`."""
    return hub_package(what).HfApi(endpoint=_endpoint(), library_name="orchestrator", library_version=__version__)


def account_of(client: Any, what: str) -> Any:
    """Return what the Hub says of the token's owner. Raises `UsageError` if there is no token."""
    if hub_package(what).get_token() is None:
        raise UsageError(f"{what}: there is no Hugging Face token: {_LOGIN}")
    return client.whoami()


def hub_files(what: str) -> Any:
    """Return the Hub as a file system (`HfFileSystem`) whose listings, which it keeps for good, are new."""
    return hub_package(what).HfFileSystem(endpoint=_endpoint(), skip_instance_cache=True)


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


@contextmanager
def without_progress_bars(what: str) -> Iterator[None]:
    """Let the package draw no bars of its own in the block."""
    utils = hub_package(what, ".utils")
    if utils.are_progress_bars_disabled():
        yield
        return
    utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.enable_progress_bars()


@contextmanager
def using_hub(what: str, *, write: bool = False) -> Iterator[None]:
    """Translate failures in using the Hub. `what`: the repo, bucket or file, for the user.

    Raises `StorageSilent` if a later try may succeed, otherwise `UsageError`. Neither shows a URL: it may be signed.
    """
    errors = hub_package(what, ".errors")
    http = import_module("httpx2")
    hooks = hub_package(what, ".utils").get_session().event_hooks
    for moment, hook in (("request", _bounded), ("response", _soon)):
        if hook not in hooks[moment]:
            hooks[moment].append(hook)
    try:
        yield
    except _LongWait as wait:
        raise StorageSilent(f"{what}: {wait}: run again after that time") from wait
    except (OSError, ValueError, RuntimeError, http.HTTPError, http.InvalidURL) as failure:
        if (translated := _translated(failure, errors, http, what, write=write)) is None:
            raise
        raise translated from failure


def _bounded(request: Any) -> None:
    """Give a request without a timeout one."""
    timeout = request.extensions["timeout"]
    timeout.update({phase: _SILENCE_SECONDS for phase, seconds in timeout.items() if seconds is None})


def _soon(answer: Any) -> None:
    """Raise `_LongWait` if the Hub asks for one, which the package would sleep through without a word."""
    if answer.status_code != 429 and answer.status_code < 500:
        return
    limit = hub_package("the Hub", ".utils").parse_ratelimit_headers(answer.headers)
    waits = 0 if limit is None or limit.remaining else limit.reset_in_seconds
    after = answer.headers.get("Retry-After", "").strip()
    waits = max(waits, int(after) if after.isdecimal() else 0)
    if waits > _LONGEST_WAIT:
        raise _LongWait(f"the Hub answers {answer.status_code} and asks to wait {duration(waits)}")


def _translated(
    failure: BaseException, errors: ModuleType, http: ModuleType, what: str, *, write: bool
) -> Exception | None:
    """Return what the user is told. None if it is not the Hub's failure: a full disk, an error in the program."""
    found = (_named(cause, errors, http, what, write=write) for cause in _chain(failure))
    if (named := next(filter(None, found), None)) is not None:
        return named
    if isinstance(failure, FileNotFoundError) and failure.errno is None:
        return UsageError(f"{what} does not exist on the Hub: check the path")
    return None


def _named(cause: Any, errors: ModuleType, http: ModuleType, what: str, *, write: bool) -> Exception | None:
    told: Exception | None = None
    match cause:
        case errors.OfflineModeIsEnabled():
            told = UsageError(f"{what}: the Hub is not used while HF_HUB_OFFLINE is set: unset it")
        case errors.GatedRepoError():
            told = UsageError(f"{what} is gated: ask for access on its page, as the owner of the Hugging Face token")
        case errors.RevisionNotFoundError():
            told = UsageError(f"{what}: the Hub has no such revision: check what follows the @")
        case errors.HFValidationError():
            told = UsageError(f"{what} is not a name on the Hub: write OWNER/NAME")
        case errors.HfHubHTTPError():
            told = _answered(cause, errors, what, write=write)
        case http.HTTPError() | http.InvalidURL():
            told = _unreached(cause, http, what)
        case UnicodeEncodeError() if cause.encoding == "ascii":  # of a header, and no other has text of the user
            told = UsageError(f"{what}: the Hugging Face token has characters that no token has: {_LOGIN}")
        case JSONDecodeError():
            told = UsageError(f"{what}: what answers is not the Hub: check HF_ENDPOINT and the proxy")
        case RuntimeError() if cause.__cause__ is None:  # of hf_xet, which has no types
            told = StorageSilent(f"{what}: the transfer to or from the Hub broke off: run again to continue it")
    return told


def _unreached(failure: Exception, http: ModuleType, what: str) -> Exception:
    if isinstance(failure, http.UnsupportedProtocol | http.InvalidURL):
        return UsageError(f"{what}: HF_ENDPOINT is not the address of a Hub: write https://HOST, or unset it")
    if "CERTIFICATE_VERIFY_FAILED" in str(failure):
        return UsageError(f"{what}: the certificate of the Hub is not trusted: set SSL_CERT_FILE")
    return StorageSilent(f"{what}: the Hub cannot be reached ({type(failure).__name__}): run again later")


def _answered(failure: Any, errors: ModuleType, what: str, *, write: bool) -> Exception:
    status = failure.response.status_code
    if status == 401 and _REFUSED in (failure.response.headers.get("X-Error-Message") or ""):
        return UsageError(f"{what}: the Hub refuses the Hugging Face token: {_LOGIN}, with a token that is valid")
    if isinstance(failure, errors.EntryNotFoundError):
        return UsageError(f"{what} does not exist on the Hub: check the path")
    if status in {401, 404}:
        return UsageError(f"{what}: the Hub shows us nothing of that name: check the name, or {_LOGIN}")
    if status == 403:
        remedy = "use a token that may write to it" if write else "use a token that may read it"
        return UsageError(f"{what}: the Hub does not permit that to the owner of the Hugging Face token: {remedy}")
    if status == 429 or status >= 500:
        return StorageSilent(f"{what}: the Hub answers {status}: run again later")
    said = " ".join(str(failure.server_message or "").split())[:200]
    return UsageError(f"{what}: the Hub answers {status}{f' ({said})' if said else ''}: check the name and the token")


def _chain(failure: BaseException | None) -> Iterator[Any]:
    while failure is not None:
        yield failure
        failure = failure.__cause__ or failure.__context__
