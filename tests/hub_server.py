"""The Hugging Face Hub on loopback: repos with branches and commits, LFS storage on an origin of its own, buckets.

It runs in a thread of the test process. `huggingface_hub`, `datasets` and the rest use it in child processes, because
they read `HF_ENDPOINT` when they are imported (`environment`). Xet uploads are stored by `tests/xet_store.py`.
"""

from __future__ import annotations

import base64
import hashlib
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import orjson
import yaml  # type: ignore[import-untyped] # its stubs are a package of their own
from aiohttp import web

from tests.hub_buckets import BucketRoutes
from tests.hub_rules import (
    HEAD,
    MOMENT,
    Refused,
    Trouble,
    below_folder,
    entry_of,
    folders_of,
    is_lfs,
    oid_of,
    ranged,
)
from tests.untraced import UntracedThread

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class FakeHub(BucketRoutes):
    """The Hub with its repos."""

    def _routes(self) -> list[web.RouteDef]:
        repo = "/api/{type:datasets|models}/{owner}/{name}"
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
            web.get("/{owner}/{name}/resolve/{revision}/{path:.+}", self._resolve),
            *self._bucket_routes(),
        ]

    async def _whoami(self, request: web.Request) -> web.Response:
        account = self._account(request)
        if account is None:
            raise Refused(401, "Invalid username or password.")
        orgs = [{"type": "org", "name": name} for name in sorted(account.writes - {account.name})]
        return web.json_response({"type": "user", "name": account.name, "orgs": orgs})

    async def _validate_yaml(self, request: web.Request) -> web.Response:
        content = (await request.json())["content"]
        head = HEAD.match(content)
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
            "lastModified": MOMENT,
            "createdAt": MOMENT,
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
        below = below_folder(files, folder, recursive=request.query.get("recursive", "").lower() == "true")
        last = self._revision(repo, request) if request.query.get("expand", "").lower() == "true" else None
        return self._paged(request, [entry_of(path, files.get(path), last) for path in below])

    async def _paths_info(self, request: web.Request) -> web.Response:
        repo = self._found(request)
        files = self._revision(repo, request).files
        asked = parse_qs((await request.read()).decode())
        last = self._revision(repo, request) if asked.get("expand") == ["true"] else None
        there = {*files, *(folder for path in files for folder in folders_of(path))}
        return web.json_response([entry_of(path, files.get(path), last) for path in asked["paths"] if path in there])

    async def _preupload(self, request: web.Request) -> web.Response:
        repo = self._found(request, write=True)
        self._revision(repo, request)
        wanted = (await request.json())["files"]
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if is_lfs(file["path"], file["size"]) else "regular",
                "shouldIgnore": False,
                "oid": oid_of(repo.files[file["path"]]) if file["path"] in repo.files else None,
            }
            for file in wanted
        ]
        return web.json_response({"files": modes})

    async def _lfs_batch(self, request: web.Request) -> web.Response:
        self._found(request, write=True)
        objects = []
        for one in (await request.json())["objects"]:
            upload = {
                "upload": {"href": f"{self.storage_url}/lfs/{one['oid']}?X-Amz-Signature=signature", "header": {}}
            }
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
        if "README.md" in files and (head_of := HEAD.match(files["README.md"].decode())):
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
            {"id": commit.oid, "title": commit.title, "message": "", "date": MOMENT, "authors": []}
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
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{oid_of(data)}"'}
        if not is_lfs(request.match_info["path"], len(data)):
            return ranged(request, data, headers)
        return self._redirected(data, headers)


@contextmanager
def fake_hub(*, page_size: int = 1000) -> Iterator[FakeHub]:
    """Start the Hub; it ends with the block."""
    hub = FakeHub(page_size)
    started: Future[tuple[str, str]] = Future()
    thread = UntracedThread(target=hub.run, args=[started], name="fake-hub", daemon=True)
    thread.start()
    try:
        hub.url, hub.storage_url = started.result(20)
        yield hub
    finally:
        hub.end()
        thread.join(20)


__all__ = ["FakeHub", "Trouble", "fake_hub"]
