"""The Hugging Face Hub on loopback: repos with branches and commits, LFS storage on an origin of its own, buckets.

It runs in a thread of the test process. `huggingface_hub`, `datasets` and the rest use it in child processes, because
they read `HF_ENDPOINT` when they are imported (`environment`). Xet uploads are stored by `tests/xet_store.py`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
import threading
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode

import orjson
import yaml  # type: ignore[import-untyped] # its stubs are a package of their own
from aiohttp import web

from tests.xet_store import XetStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from pathlib import Path

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_MOMENT = "2026-01-01T00:00:00.000Z"
_LFS = (".parquet", ".bin", ".zst", ".gz")  # as in .gitattributes; other files are LFS from 10 MB
_LFS_BYTES = 10 << 20
_HEAD = re.compile(r"\A---\r?\n(.*?)\r?\n---(\r?\n|\Z)", re.DOTALL)


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

    `cut`: the connection is closed after this many bytes of the body. `meanwhile`: is called, then the request is
    handled as usual. `lost`: the request is handled, and its answer is lost.
    """

    pattern: str
    status: int = 503
    cut: int | None = None
    meanwhile: Callable[[], object] | None = None
    message: str = "trouble"
    code: str | None = None
    lost: bool = False
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


class FakeHub:
    """The Hub as a test sees it. `acme` and its token may write to the namespaces `acme` and `me`."""

    def __init__(self, page_size: int) -> None:
        self.token = "hf_fakeTokenOfTheTests"
        self.url = ""
        self.storage_url = ""
        self.accounts = {self.token: Account("acme", frozenset({"acme", "me"}))}
        self.repos: dict[tuple[str, str], Repo] = {}
        self.buckets: dict[str, Bucket] = {}
        self.lfs: dict[str, bytes] = {}
        self.requests: list[Seen] = []
        self.troubles: list[Trouble] = []
        self._page_size = page_size
        self._numbers = count(1)
        self._xet = XetStore()
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()

    # -- what a test does ------------------------------------------------------------------------------------------

    def environment(self, home: Path, *, token: str | None = None, xet: bool = False) -> dict[str, str]:
        """Return the environment of a child process that uses this Hub with this token, by default the valid one."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING_FACE"))}
        return {
            **ours,
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home / "hf-home"),
            "HF_TOKEN": self.token if token is None else token,
            "HF_HUB_DISABLE_XET": "0" if xet else "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1,localhost",
        }

    def add(self, name: str, files: Mapping[str, bytes] | None = None, type: str = "dataset", **about: Any) -> Repo:  # noqa: A002
        """Add a repo with these files in its first commit."""
        repo = self.repos[type, name] = Repo(type, name, **about)
        repo.branches["main"] = [self._commit("initial commit", {".gitattributes": b"", **(files or {})})]
        return repo

    def dataset(self, name: str) -> Repo:
        """Return a dataset repo."""
        return self.repos["dataset", name]

    def push(self, name: str, files: Mapping[str, bytes | None], type: str = "dataset") -> None:  # noqa: A002
        """Add a commit, as somebody else would; None deletes a file."""
        repo = self.repos[type, name]
        after = {path: data for path, data in {**repo.files, **files}.items() if data is not None}
        repo.commits.append(self._commit("somebody else's commit", after))

    def add_bucket(self, name: str, files: Mapping[str, bytes] | None = None) -> Bucket:
        """Add a bucket with these files."""
        self.buckets[name] = Bucket(name, files=dict(files or {}))
        return self.buckets[name]

    def grant(self, token: str, name: str, *writes: str) -> None:
        """Add a token, which may write to these namespaces."""
        self.accounts[token] = Account(name, frozenset(writes))

    def revoke(self, token: str | None = None) -> None:
        """Make a token invalid."""
        del self.accounts[token or self.token]

    def trouble(self, *troubles: Trouble) -> None:
        """Cause this trouble from now on; the first that matches a request counts."""
        self.troubles.extend(troubles)

    def seen(self, pattern: str = "") -> list[Seen]:
        """Return the requests so far whose "METHOD /path" matches the pattern."""
        return [request for request in self.requests if re.search(pattern, str(request))]

    def _commit(self, title: str, files: Mapping[str, bytes]) -> Commit:
        return Commit(hashlib.sha1(f"{next(self._numbers)}{title}".encode()).hexdigest(), title, dict(files))  # noqa: S324

    # -- serving ---------------------------------------------------------------------------------------------------

    def run(self, started: Future[tuple[str, str]]) -> None:
        """Serve until the block of `fake_hub` ends."""
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(started))

    async def _serve(self, started: Future[tuple[str, str]]) -> None:
        app = web.Application(middlewares=[self._answered], client_max_size=1 << 30)
        app.add_routes(self._routes())
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        try:
            for _ in range(2):
                await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
            hub, storage = (f"http://127.0.0.1:{address[1]}" for address in runner.addresses)
            started.set_result((hub, storage))
            await self._ended.wait()
        finally:
            await runner.cleanup()

    def end(self) -> None:
        """Stop serving."""
        self._loop.call_soon_threadsafe(self._ended.set)

    def _routes(self) -> list[web.RouteDef]:
        repo = "/api/{type:datasets|models}/{owner}/{name}"
        bucket = "/api/buckets/{owner}/{name}"
        return [
            web.get("/api/whoami-v2", self._whoami),
            web.post("/api/validate-yaml", self._validate_yaml),
            web.post("/api/repos/create", self._create),
            web.get(repo, self._info),
            web.get(repo + "/revision/{revision}", self._info),
            web.get(repo + "/refs", self._refs),
            web.get(repo + "/auth-check/write", self._may_write),
            web.get(repo + "/tree/{revision}", self._tree),
            web.get(repo + "/tree/{revision}/{path}", self._tree),
            web.post(repo + "/paths-info/{revision}", self._paths_info),
            web.post(repo + "/preupload/{revision}", self._preupload),
            web.post(repo + "/commit/{revision}", self._commits),
            web.get(repo + "/commits/{revision}", self._history),
            web.post(repo + "/branch/{branch}", self._branch),
            web.post(repo + "/tag/{revision}", self._tag),
            web.get(repo + "/xet-write-token/{revision}", self._xet_token),
            web.post("/{type:datasets}/{owner}/{name}.git/info/lfs/objects/batch", self._lfs_batch),
            web.post("/{owner}/{name}.git/info/lfs/objects/batch", self._lfs_batch),
            web.put("/lfs/{oid}", self._lfs_put),
            web.get("/lfs/{oid}", self._lfs_get),
            web.get("/{type:datasets}/{owner}/{name}/resolve/{revision}/{path:.+}", self._resolve),
            web.post(bucket, self._create_bucket),
            web.get(bucket, self._bucket_info),
            web.get(bucket + "/tree", self._bucket_tree),
            web.get(bucket + "/tree/{path}", self._bucket_tree),
            web.post(bucket + "/paths-info", self._bucket_paths_info),
            web.post(bucket + "/batch", self._bucket_batch),
            web.get(bucket + "/xet-write-token", self._xet_token),
            web.get("/buckets/{owner}/{name}/resolve/{path:.+}", self._bucket_resolve),
            web.get("/{owner}/{name}/resolve/{revision}/{path:.+}", self._resolve),
            *self._xet.routes(),
        ]

    @web.middleware
    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization")
        token = given.removeprefix("Bearer ") if given else None
        storage = request.host == self.storage_url.removeprefix("http://")
        seen = Seen(request.method, request.path_qs, request.headers.get("Range"), token, storage)
        self.requests.append(seen)
        try:
            if (trouble := self._due(seen)) is not None:
                if trouble.lost:
                    await handler(request)
                if trouble.meanwhile is None:
                    return await _cut_or_refused(request, trouble)
                trouble.meanwhile()
            self._authenticate(seen)
            return await handler(request)
        except Refused as refused:
            return refused.answer
        except web.HTTPException as error:
            return web.json_response({"error": error.reason}, status=error.status)

    def _due(self, seen: Seen) -> Trouble | None:
        trouble = next((one for one in self.troubles if re.search(one.pattern, str(seen))), None)
        if trouble is not None:
            self.troubles.remove(trouble)
            if trouble.times > 1:
                self.troubles.append(replace(trouble, times=trouble.times - 1))
        return trouble

    def _authenticate(self, seen: Seen) -> None:
        if seen.token is not None and not seen.storage and seen.token not in self.accounts:
            raise Refused(401, "Invalid credentials in Authorization header")

    def _account(self, request: web.Request) -> Account | None:
        return self.accounts.get(request.headers.get("Authorization", "").removeprefix("Bearer "))

    def _found(self, request: web.Request, *, write: bool = False) -> Repo:
        kind = request.match_info.get("type", "models").removesuffix("s")
        name = "{owner}/{name}".format_map(request.match_info)
        repo = self.repos.get((kind, name))
        self._permit(request, name, None if repo is None else repo.visibility, write=write)
        assert repo is not None
        return repo

    def _permit(self, request: web.Request, name: str, visibility: str | None, *, write: bool = False) -> None:
        account = self._account(request)
        may_write = account is not None and name.partition("/")[0] in account.writes
        if visibility is None or (visibility == "private" and not may_write):
            if account is None:  # the client recognizes it by the path alone, but only behind https
                raise Refused(401, "Invalid username or password.", "RepoNotFound")
            raise Refused(404, "Repository not found", "RepoNotFound")
        if write and not may_write:
            raise Refused(403, "you must use a token with write access to upload to a repository")

    def _revision(self, repo: Repo, request: web.Request) -> Commit:
        commit = repo.find(request.match_info.get("revision", "main"))
        if commit is None:
            raise Refused(404, f"Invalid rev id: {request.match_info.get('revision')}", "RevisionNotFound")
        return commit

    def _paged(self, request: web.Request, entries: list[dict[str, Any]]) -> web.Response:
        first = int(request.query.get("cursor", 0))
        headers = {}
        if first + self._page_size < len(entries):
            query = urlencode({**request.query, "cursor": first + self._page_size})
            headers["Link"] = f'<{self.url}{request.rel_url.raw_path}?{query}>; rel="next"'
        return web.json_response(entries[first : first + self._page_size], headers=headers)

    # -- repos -----------------------------------------------------------------------------------------------------

    async def _whoami(self, request: web.Request) -> web.Response:
        account = self._account(request)
        if account is None:
            raise Refused(401, "Invalid username or password.")
        orgs = [{"type": "org", "name": name} for name in sorted(account.writes - {account.name})]
        return web.json_response({"type": "user", "name": account.name, "orgs": orgs})

    async def _validate_yaml(self, request: web.Request) -> web.Response:
        content = (await request.json())["content"]
        head = _HEAD.match(content)
        errors = []
        try:
            found = yaml.safe_load(head[1]) if head else None
            if found is not None and not isinstance(found, dict):
                errors = [{"message": "the metadata must be an object"}]
        except yaml.YAMLError as error:
            errors = [{"message": str(error)}]
        return web.json_response({"warnings": [], "errors": errors}, status=400 if errors else 200)

    async def _create(self, request: web.Request) -> web.Response:
        wanted = await request.json()
        account = self._account(request)
        if account is None:
            raise Refused(401, "Invalid username or password.")
        owner = wanted.get("organization") or account.name
        name, kind = f"{owner}/{wanted['name']}", wanted.get("type") or "model"
        url = f"{self.url}/{'datasets/' if kind == 'dataset' else ''}{name}"
        if owner not in account.writes:
            message = f'You don\'t have the rights to create a {kind} under the namespace "{owner}"'
            raise Refused(403, message)
        if (kind, name) in self.repos:
            body = {"error": f"You already created this {kind} repo", "url": url, "name": name}
            return web.json_response(body, status=409)
        self.add(name, type=kind, visibility=wanted.get("visibility", "public"))
        return web.json_response({"url": url, "name": name, "id": name})

    async def _info(self, request: web.Request) -> web.Response:
        repo = self._found(request)
        commit = self._revision(repo, request)
        about = {
            "_id": repo.id,
            "id": repo.id,
            "author": repo.id.partition("/")[0],
            "sha": commit.oid,
            "private": repo.visibility == "private",
            "visibility": repo.visibility,
            "gated": "manual" if repo.gated else False,
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "lastModified": _MOMENT,
            "createdAt": _MOMENT,
            "siblings": [{"rfilename": path} for path in commit.files],
        }
        return web.json_response(about)

    async def _may_write(self, request: web.Request) -> web.Response:
        self._found(request, write=True)
        return web.json_response({})

    async def _refs(self, request: web.Request) -> web.Response:
        repo = self._found(request)
        branches = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commits[-1].oid}
            for name, commits in repo.branches.items()
        ]
        tags = [
            {"name": name, "ref": f"refs/tags/{name}", "targetCommit": commit.oid} for name, commit in repo.tags.items()
        ]
        return web.json_response({"branches": branches, "tags": tags, "converts": []})

    async def _tree(self, request: web.Request) -> web.Response:
        repo = self._found(request)
        files = self._revision(repo, request).files
        folder = request.match_info.get("path", "")
        if folder and not any(path.startswith(f"{folder}/") for path in files):
            raise Refused(404, f"{folder} does not exist on this revision", "EntryNotFound")
        below = _below(files, folder, recursive=request.query.get("recursive", "").lower() == "true")
        last = self._revision(repo, request) if request.query.get("expand", "").lower() == "true" else None
        return self._paged(request, [_entry(path, files.get(path), last) for path in below])

    async def _paths_info(self, request: web.Request) -> web.Response:
        repo = self._found(request)
        files = self._revision(repo, request).files
        asked = parse_qs((await request.read()).decode())
        last = self._revision(repo, request) if asked.get("expand") == ["true"] else None
        there = {*files, *(folder for path in files for folder in _folders(path))}
        return web.json_response([_entry(path, files.get(path), last) for path in asked["paths"] if path in there])

    async def _preupload(self, request: web.Request) -> web.Response:
        repo = self._found(request, write=True)
        self._revision(repo, request)
        wanted = (await request.json())["files"]
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if _is_lfs(file["path"], file["size"]) else "regular",
                "shouldIgnore": False,
                "oid": _oid(repo.files[file["path"]]) if file["path"] in repo.files else None,
            }
            for file in wanted
        ]
        return web.json_response({"files": modes})

    async def _lfs_batch(self, request: web.Request) -> web.Response:
        self._found(request, write=True)
        objects = []
        for one in (await request.json())["objects"]:
            upload = {"upload": {"href": f"{self.storage_url}/lfs/{one['oid']}", "header": {}}}
            objects.append({**one, **({} if one["oid"] in self.lfs else {"actions": upload})})
        answer = orjson.dumps({"transfer": "basic", "objects": objects})
        return web.Response(body=answer, content_type="application/vnd.git-lfs+json")

    async def _lfs_put(self, request: web.Request) -> web.Response:
        data = await request.read()
        if hashlib.sha256(data).hexdigest() != request.match_info["oid"]:
            raise Refused(400, "the content has another hash")
        self.lfs[request.match_info["oid"]] = data
        return web.Response()

    async def _commits(self, request: web.Request) -> web.Response:
        repo = self._found(request, write=True)
        branch = request.match_info["revision"]
        lines = [orjson.loads(line) for line in (await request.read()).splitlines()]
        header = lines[0]["value"]
        head = self._revision(repo, request)
        if header.get("parentCommit") not in {None, head.oid}:
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        files = dict(head.files)
        for line in lines[1:]:
            self._change(files, line["key"], line["value"])
        if "README.md" in files and (head_of := _HEAD.match(files["README.md"].decode())):
            yaml.safe_load(head_of[1])
        commit = head if files == head.files else self._commit(header["summary"], files)
        if commit is not head:
            repo.branches[branch].append(commit)
        url = f"{self.url}/{repo.type}s/{repo.id}/commit/{commit.oid}"
        return web.json_response({"success": True, "commitOid": commit.oid, "commitUrl": url, "hookOutput": ""})

    def _change(self, files: dict[str, bytes], key: str, value: Mapping[str, Any]) -> None:
        match key:
            case "file":
                files[value["path"]] = base64.b64decode(value["content"])
            case "lfsFile":
                stored = self.lfs.get(value["oid"]) or self._xet.with_sha256(value["oid"])
                if stored is None:
                    raise Refused(400, f"the LFS object {value['oid']} was not uploaded")
                files[value["path"]] = stored
            case "deletedFile":
                if files.pop(value["path"], None) is None:
                    raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")
            case "deletedFolder":
                for path in [path for path in files if path.startswith(value["path"].rstrip("/") + "/")]:
                    del files[path]
            case _:
                raise Refused(400, f"there is no {key} in a commit")

    async def _history(self, request: web.Request) -> web.Response:
        repo = self._found(request)
        self._revision(repo, request)
        commits = repo.branches.get(request.match_info["revision"], repo.commits)
        entries = [
            {"id": commit.oid, "title": commit.title, "message": "", "date": _MOMENT, "authors": []}
            for commit in reversed(commits)
        ]
        return self._paged(request, entries)

    async def _branch(self, request: web.Request) -> web.Response:
        repo = self._found(request, write=True)
        if request.match_info["branch"] in repo.branches:
            raise Refused(409, "Reference already exists")
        start = repo.find((await request.json()).get("startingPoint", "main"))
        assert start is not None
        repo.branches[request.match_info["branch"]] = [start]
        return web.json_response({})

    async def _tag(self, request: web.Request) -> web.Response:
        repo = self._found(request, write=True)
        repo.tags[(await request.json())["tag"]] = self._revision(repo, request)
        return web.json_response({})

    async def _resolve(self, request: web.Request) -> web.StreamResponse:
        """Serve small files; redirect to the storage's origin for others."""
        repo = self._found(request)
        if repo.gated and self._account(request) is None:
            raise Refused(401, f"Access to dataset {repo.id} is restricted.", "GatedRepo")
        account = self._account(request)
        if repo.gated and account is not None and repo.id.partition("/")[0] not in account.writes:
            raise Refused(
                403, f"Access to dataset {repo.id} is restricted and you are not in the authorized list.", "GatedRepo"
            )
        commit = self._revision(repo, request)
        data = commit.files.get(request.match_info["path"])
        if data is None:
            raise Refused(404, "Entry not found", "EntryNotFound")
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{_oid(data)}"'}
        if not _is_lfs(request.match_info["path"], len(data)):
            return _ranged(request, data, headers)
        return self._redirected(data, headers)

    def _redirected(self, data: bytes, headers: Mapping[str, str]) -> web.Response:
        oid = hashlib.sha256(data).hexdigest()
        self.lfs[oid] = data
        linked = {"X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{oid}"'}
        signed = f"{self.storage_url}/lfs/{oid}?signature=secret"
        return web.Response(status=302, headers={**headers, **linked, "Location": signed})

    async def _lfs_get(self, request: web.Request) -> web.StreamResponse:
        oid = request.match_info["oid"]
        return _ranged(request, self.lfs[oid], {"ETag": f'"{oid}"'})

    # -- buckets ---------------------------------------------------------------------------------------------------

    def _bucket(self, request: web.Request, *, write: bool = False) -> Bucket:
        name = "{owner}/{name}".format_map(request.match_info)
        bucket = self.buckets.get(name)
        self._permit(request, name, None if bucket is None else bucket.visibility, write=write)
        assert bucket is not None
        return bucket

    async def _create_bucket(self, request: web.Request) -> web.Response:
        name = "{owner}/{name}".format_map(request.match_info)
        account = self._account(request)
        if account is None or request.match_info["owner"] not in account.writes:
            raise Refused(403, f"You don't have the rights to create a bucket under the namespace of {name}")
        url = f"{self.url}/buckets/{name}"
        if name in self.buckets:
            return web.json_response({"error": "You already created this bucket", "url": url}, status=409)
        wanted = orjson.loads(await request.read() or b"{}")
        self.add_bucket(name).visibility = wanted.get("visibility", "public")
        return web.json_response({"url": url, "name": name})

    async def _bucket_info(self, request: web.Request) -> web.Response:
        bucket = self._bucket(request)
        about = {
            "id": bucket.id,
            "private": bucket.visibility == "private",
            "createdAt": _MOMENT,
            "size": sum(map(len, bucket.files.values())),
            "totalFiles": len(bucket.files),
        }
        return web.json_response(about)

    async def _bucket_tree(self, request: web.Request) -> web.Response:
        files = self._bucket(request).files
        folder = request.match_info.get("path", "").strip("/")
        below = _below(files, folder, recursive=request.query.get("recursive", "").lower() == "true")
        return self._paged(request, [_bucket_entry(path, files.get(path)) for path in below])

    async def _bucket_paths_info(self, request: web.Request) -> web.Response:
        files = self._bucket(request).files
        wanted = (await request.json())["paths"]
        return web.json_response([_bucket_entry(path, files[path]) for path in wanted if path in files])

    async def _bucket_batch(self, request: web.Request) -> web.Response:
        """Apply the operations one by one, as the Hub does: those that fail are listed."""
        bucket = self._bucket(request, write=True)
        failed = []
        for line in (await request.read()).splitlines():
            wanted = orjson.loads(line)
            path = wanted["path"]
            if wanted["type"] == "deleteFile":
                found = bucket.files.pop(path, None)
            else:
                found = self._xet.with_hash(wanted["xetHash"]) or self._stored(wanted)
                if found is not None:
                    bucket.files[path] = found
            if found is None:
                failed.append({"path": path, "error": "not found"})
        return web.json_response(
            {"success": not failed, "processed": 1, "failed": failed}, status=422 if failed else 200
        )

    def _stored(self, wanted: Mapping[str, Any]) -> bytes | None:
        """Return the content with this Xet hash in the repo or bucket that a copy names."""
        if (kind := wanted.get("sourceRepoType")) == "bucket":
            files: Mapping[str, bytes] = self.buckets[wanted["sourceRepoId"]].files
        elif kind is not None:
            files = self.repos[kind, wanted["sourceRepoId"]].files
        else:
            return None
        return next((data for data in files.values() if _xet_hash(data) == wanted["xetHash"]), None)

    async def _bucket_resolve(self, request: web.Request) -> web.StreamResponse:
        bucket = self._bucket(request)
        data = bucket.files.get(request.match_info["path"])
        if data is None:
            raise Refused(404, "Entry not found", "EntryNotFound")
        headers = {"ETag": f'"{_xet_hash(data)}"', "X-Xet-Hash": _xet_hash(data)}
        return self._redirected(data, headers)

    async def _xet_token(self, request: web.Request) -> web.Response:
        if request.match_info.get("type"):
            self._found(request, write=True)
        else:
            self._bucket(request, write=True)
        return web.json_response({"accessToken": "xet-token", "casUrl": self.storage_url, "exp": 4_000_000_000})


async def _cut_or_refused(request: web.Request, trouble: Trouble) -> web.StreamResponse:
    if trouble.cut is not None or trouble.lost:
        if trouble.cut:
            await request.content.read(trouble.cut)
        assert request.transport is not None
        request.transport.abort()
        raise Refused(500, "cut")
    raise Refused(trouble.status, trouble.message, trouble.code)


def _ranged(request: web.Request, data: bytes, headers: Mapping[str, str]) -> web.Response:
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
    every = {**headers, "Accept-Ranges": "bytes"}
    if asked is None:
        return web.Response(body=data, headers=every)
    first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
    if first >= len(data):
        return web.Response(status=416, headers={**every, "Content-Range": f"bytes */{len(data)}"})
    place = f"bytes {first}-{last}/{len(data)}"
    return web.Response(status=206, body=data[first : last + 1], headers={**every, "Content-Range": place})


def _below(files: Mapping[str, bytes], folder: str, *, recursive: bool) -> list[str]:
    """Return the files and folders in a folder, sorted."""
    prefix = f"{folder}/" if folder else ""
    inside = {path for path in files if path.startswith(prefix)}
    inside |= {one for path in inside for one in _folders(path) if one.startswith(prefix)}
    return sorted(path for path in inside if recursive or "/" not in path.removeprefix(prefix))


def _folders(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


def _entry(path: str, data: bytes | None, last: Commit | None = None) -> dict[str, Any]:
    about = {} if last is None else {"lastCommit": {"id": last.oid, "title": last.title, "date": _MOMENT}}
    if data is None:
        return {"type": "directory", "path": path, "oid": _oid(path.encode()), "size": 0, **about}
    entry = {"type": "file", "path": path, "size": len(data), "oid": _oid(data), **about}
    if _is_lfs(path, len(data)):
        sha256 = hashlib.sha256(data).hexdigest()
        entry |= {"lfs": {"oid": sha256, "size": len(data), "pointerSize": 130}, "xetHash": _xet_hash(data)}
    return entry


def _bucket_entry(path: str, data: bytes | None) -> dict[str, Any]:
    if data is None:
        return {"type": "directory", "path": path, "uploadedAt": _MOMENT}
    return {"type": "file", "path": path, "size": len(data), "xetHash": _xet_hash(data), "mtime": _MOMENT}


def _is_lfs(path: str, size: int) -> bool:
    return size > 0 and (path.endswith(_LFS) or size > _LFS_BYTES)


def _oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # noqa: S324


def _xet_hash(data: bytes) -> str:
    return hashlib.sha256(b"xet" + data).hexdigest()


@contextmanager
def fake_hub(*, page_size: int = 1000) -> Iterator[FakeHub]:
    """Start the Hub; it ends with the block."""
    hub = FakeHub(page_size)
    started: Future[tuple[str, str]] = Future()
    thread = threading.Thread(target=hub.run, args=[started], name="fake-hub", daemon=True)
    thread.start()
    try:
        hub.url, hub.storage_url = started.result(20)
        yield hub
    finally:
        hub.end()
        thread.join(20)
