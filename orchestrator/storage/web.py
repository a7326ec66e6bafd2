"""Files on web servers, which are only read."""

from __future__ import annotations

import errno
import os
import re
import time
from contextlib import ExitStack
from http.client import HTTPException, IncompleteRead, InvalidURL
from tempfile import TemporaryFile, gettempdir
from typing import IO, TYPE_CHECKING, BinaryIO, NoReturn, TypeVar, cast
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import ProxyHandler, Request, build_opener

from orchestrator.domain.errors import UsageError
from orchestrator.domain.proxies import proxy_for
from orchestrator.storage.failures import changed, unusable, without_keys
from orchestrator.storage.ranged_file import RangedFile
from orchestrator.storage.store import Stat

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from email.message import Message
    from http.client import HTTPResponse

    from orchestrator.domain.location import Location

T = TypeVar("T")

_TIMEOUT = 60.0
_PAUSES = (0.2, 0.5, 1.0, 2.0)  # seconds between attempts
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_MISSING = frozenset({404, 410})
_NO_HEAD = frozenset({403, 405, 501})
_NO_SUCH_RANGE = 416
_RANGE = re.compile(r"bytes (?P<begin>\d+)-\d+/(?P<size>\d+)")
_SENT_AS_IT_IS = "!#$%&'()*+,/:;=?@[]~"


class Web:
    """Reads `https://` and `http://` by ranges. The file of a server without ranges is copied to this machine first."""

    def stat(self, location: Location) -> Stat | None:
        """Return size and version: the entity tag, or the time of the last change. None if there is no such file."""
        return _repeated(location, lambda: _head(location))

    def open(self, location: Location) -> BinaryIO:
        """Open the file for reading."""
        stat = self.stat(location)
        if stat is None:
            raise unusable(location, "read", FileNotFoundError("does not exist"))
        return cast("BinaryIO", _Reader(location, stat))

    def check_unchanged(self, location: Location, file: BinaryIO) -> None:
        """Do nothing: every read compares."""

    def matches(self, pattern: Location) -> Sequence[Location]:
        """Return the location itself, because a web server lists nothing."""
        return [pattern]

    def check_writable(self, location: Location) -> None:
        """Raise `UsageError`."""
        _refuse(location)

    def put(self, location: Location, file: BinaryIO) -> None:
        """Raise `UsageError`."""
        _refuse(location)

    def copy(self, source: Location, target: Location) -> None:
        """Raise `UsageError`."""
        _refuse(target)

    def delete(self, location: Location) -> None:
        """Raise `UsageError`."""
        _refuse(location)

    def abort_unfinished(self, locations: Sequence[Location]) -> None:
        """Do nothing, because nothing is ever uploaded."""


class _Reader(RangedFile):
    """An open file. Each read is one request for that range."""

    def __init__(self, location: Location, stat: Stat) -> None:
        super().__init__(stat.size or 0)
        self._location = location
        self._version = stat.version
        self._begun = False  # to read by ranges
        self._copy: IO[bytes] | None = None  # of the whole file, if the server has no ranges
        if stat.size is None:
            self._size = self._copy_whole()

    def close(self) -> None:
        if self._copy is not None:
            self._copy.close()
        super().close()

    def _between(self, begin: int, end: int) -> bytes:
        if self._copy is None:
            data = _repeated(self._location, lambda: self._asked(begin, end))
            if data is not None:
                return data
            self._size = self._copy_whole()
        assert self._copy is not None
        self._copy.seek(begin)
        return self._copy.read(end - begin)

    def _asked(self, begin: int, end: int) -> bytes | None:
        """Return the bytes in this range; None if the server answers with the whole file instead."""
        try:
            answer = _requested(self._location, "GET", {"Range": f"bytes={begin}-{end - 1}"})
        except HTTPError as failure:
            if failure.code == _NO_SUCH_RANGE:
                raise changed(self._location) from failure
            raise
        with answer:
            found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            if answer.status != 206 or found is None or int(found["begin"]) != begin:
                return None
            self._check_same(answer.headers, int(found["size"]))
            data = answer.read()
        if len(data) != end - begin:
            raise IncompleteRead(data, end - begin - len(data))
        self._begun = True
        return data

    def _copy_whole(self) -> int:
        self._copy, headers = _repeated(self._location, lambda: _copied(self._location))
        size = self._copy.tell()
        if self._begun:
            self._check_same(headers, size)
        return size

    def _check_same(self, headers: Message, size: int) -> None:
        if (self._version, self._size) != (_version_in(headers, size), size):
            raise changed(self._location)


def _head(location: Location) -> Stat | None:
    try:
        with _requested(location, "HEAD") as answer:
            return _stat_in(answer.headers)
    except HTTPError as failure:
        if failure.code in _MISSING:
            return None
        if failure.code not in _NO_HEAD:
            raise
    with _requested(location, "GET") as answer:  # of which only the head is read
        return _stat_in(answer.headers)


def _stat_in(headers: Message) -> Stat:
    length = headers.get("Content-Length", "")
    size = (
        int(length) if length.isdecimal() else 0
    ) or None  # some servers say 0 of what they make when it is asked for
    return Stat(size, _version_in(headers, size))


def _version_in(headers: Message, size: int | None) -> str | None:
    if tag := headers.get("ETag"):
        return tag
    changed = headers.get("Last-Modified")
    return None if changed is None or size is None else f"{size} bytes of {changed}"


def _copied(location: Location) -> tuple[IO[bytes], Message]:
    with ExitStack() as stack:
        copy = stack.enter_context(TemporaryFile())
        with _requested(location, "GET") as answer:
            while piece := answer.read(1 << 20):
                copy.write(piece)
            if answer.length:
                raise IncompleteRead(b"", answer.length)
        stack.pop_all()
    return copy, answer.headers


def _requested(location: Location, method: str, headers: dict[str, str] | None = None) -> HTTPResponse:
    proxy = proxy_for(location, os.environ)
    opener = build_opener(ProxyHandler({} if proxy is None else {"http": proxy, "https": proxy}))
    request = Request(_address(location), headers={"Accept-Encoding": "identity", **(headers or {})}, method=method)  # noqa: S310 - http or https
    return cast("HTTPResponse", opener.open(request, timeout=_TIMEOUT))


def _address(location: Location) -> str:
    """Return the URL as it is sent: without its fragment, and with spaces and non-ASCII characters encoded."""
    host = f"{location.scheme}://{location.bucket}"
    return host + quote(location.partition("#")[0].removeprefix(host), _SENT_AS_IT_IS)


def _repeated(location: Location, ask: Callable[[], T]) -> T:
    """Return the answer, after repeating what failed for a transient reason."""
    for pause in (*_PAUSES, None):
        try:
            return ask()
        except (ValueError, InvalidURL) as failure:
            raise UsageError(f"{location} is not the address of a file: check its host and port") from failure
        except (OSError, HTTPException) as failure:
            if isinstance(failure, HTTPError):
                failure.close()
            if getattr(failure, "errno", None) in _FULL:
                raise UsageError(
                    f"{location} cannot be copied to {gettempdir()} ({os.strerror(errno.ENOSPC)}), which is needed "
                    "because its server has no ranges: free some space there, or set TMPDIR to another folder"
                ) from failure
            if pause is None or not _is_transient(failure):
                raise unusable(location, "read", failure) from without_keys(failure)
        time.sleep(pause)
    raise AssertionError


def _is_transient(failure: OSError | HTTPException) -> bool:
    if isinstance(failure, HTTPError):
        return failure.code in _TRANSIENT
    cause = getattr(failure, "reason", failure)
    return isinstance(cause, ConnectionError | TimeoutError | HTTPException)


def _refuse(location: Location) -> NoReturn:
    raise UsageError(
        f"{location} cannot be written ({location.scheme}:// is only read): give a path, or s3://, gs://, abfs:// or hf://"
    )
