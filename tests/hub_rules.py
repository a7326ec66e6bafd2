"""The fake Hub's values, and how it describes files: see `hub_server`."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MOMENT = "2026-01-01T00:00:00.000Z"
LFS = (".parquet", ".bin", ".zst", ".gz")  # as in .gitattributes; other files are LFS from 10 MB
LFS_BYTES = 10 << 20
HEAD = re.compile(r"\A---\r?\n(.*?)\r?\n---(\r?\n|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit, with every file of the repo after it."""

    oid: str
    title: str
    files: Mapping[str, bytes]


@dataclass(slots=True)
class Repo:
    """A repo: its branches and tags are names of commits."""

    type: str
    id: str
    visibility: str = "public"
    gated: bool = False
    branches: dict[str, list[Commit]] = field(default_factory=dict)
    tags: dict[str, Commit] = field(default_factory=dict)

    @property
    def commits(self) -> list[Commit]:
        """The commits of the main branch, the newest last."""
        return self.branches["main"]

    @property
    def files(self) -> Mapping[str, bytes]:
        """The files of the main branch."""
        return self.commits[-1].files

    def find(self, revision: str) -> Commit | None:
        """Return the commit of a branch, a tag or a hash."""
        if revision in self.branches:
            return self.branches[revision][-1]
        known = (commit for commits in self.branches.values() for commit in commits)
        return self.tags.get(revision) or next((commit for commit in known if commit.oid == revision), None)


@dataclass(slots=True)
class Bucket:
    """A bucket: unversioned files."""

    id: str
    visibility: str = "public"
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Account:
    """The owner of a token, which may write to these namespaces."""

    name: str
    writes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Trouble:
    """What happens to requests whose "METHOD /path" matches: `times` of them get the status, or none if it is 0.

    `after`: the status comes with this Retry-After. `cut`: the connection is closed after this many bytes of the body.
    `meanwhile`: is called, then the request is handled as usual. `lost`: the request is handled, and its answer is
    lost. `silent`: it is never answered.
    """

    pattern: str
    status: int = 503
    cut: int | None = None
    meanwhile: Callable[[], object] | None = None
    message: str = "trouble"
    code: str | None = None
    lost: bool = False
    after: str | None = None
    silent: bool = False
    times: int = 1


@dataclass(frozen=True, slots=True)
class Seen:
    """One request: `storage` is the origin beside the Hub's own, `token` the one that it carried, if any."""

    method: str
    path: str
    range: str | None
    token: str | None
    storage: bool

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class Refused(Exception):
    """The error that a request is answered with."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.answer = web.json_response({"error": message}, status=status, headers=headers)


async def cut_or_refused(request: web.Request, trouble: Trouble) -> web.StreamResponse:
    """Close the connection, or refuse the request, as ordered."""
    if trouble.cut is not None or trouble.lost:
        if trouble.cut:
            await request.content.read(trouble.cut)
        assert request.transport is not None
        request.transport.abort()
        raise Refused(500, "cut")
    refused = Refused(trouble.status, trouble.message, trouble.code)
    if trouble.after is not None:
        refused.answer.headers["Retry-After"] = trouble.after
    raise refused


def ranged(request: web.Request, data: bytes, headers: Mapping[str, str]) -> web.Response:
    """Return the bytes that the request asks for."""
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
    every = {**headers, "Accept-Ranges": "bytes"}
    if asked is None:
        return web.Response(body=data, headers=every)
    first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
    if first >= len(data):
        return web.Response(status=416, headers={**every, "Content-Range": f"bytes */{len(data)}"})
    place = f"bytes {first}-{last}/{len(data)}"
    return web.Response(status=206, body=data[first : last + 1], headers={**every, "Content-Range": place})


def below_folder(files: Mapping[str, bytes], folder: str, *, recursive: bool) -> list[str]:
    """Return the files and folders in a folder, sorted."""
    prefix = f"{folder}/" if folder else ""
    inside = {path for path in files if path.startswith(prefix)}
    inside |= {one for path in inside for one in folders_of(path) if one.startswith(prefix)}
    return sorted(path for path in inside if recursive or "/" not in path.removeprefix(prefix))


def folders_of(path: str) -> list[str]:
    """Return every folder that the path is in."""
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


def entry_of(path: str, data: bytes | None, last: Commit | None = None) -> dict[str, Any]:
    """Return how a repo's listing describes a file, or a folder (None)."""
    about = {} if last is None else {"lastCommit": {"id": last.oid, "title": last.title, "date": MOMENT}}
    if data is None:
        return {"type": "directory", "path": path, "oid": oid_of(path.encode()), "size": 0, **about}
    entry = {"type": "file", "path": path, "size": len(data), "oid": oid_of(data), **about}
    if is_lfs(path, len(data)):
        sha256 = hashlib.sha256(data).hexdigest()
        entry |= {"lfs": {"oid": sha256, "size": len(data), "pointerSize": 130}, "xetHash": xet_hash_of(data)}
    return entry


def bucket_entry(path: str, data: bytes | None) -> dict[str, Any]:
    """Return how a bucket's listing describes a file, or a folder (None)."""
    if data is None:
        return {"type": "directory", "path": path, "uploadedAt": MOMENT}
    return {"type": "file", "path": path, "size": len(data), "xetHash": xet_hash_of(data), "mtime": MOMENT}


def is_lfs(path: str, size: int) -> bool:
    """Whether a file with this name and size is stored by LFS."""
    return size > 0 and (path.endswith(LFS) or size > LFS_BYTES)


def oid_of(data: bytes) -> str:
    """Return git's hash of a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # noqa: S324


def xet_hash_of(data: bytes) -> str:
    """Return a stand-in for the Xet hash of a file."""
    return hashlib.sha256(b"xet" + data).hexdigest()
