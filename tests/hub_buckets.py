"""The fake Hub's buckets, and the storage on an origin of its own: see `hub_server`."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from tests.hub_core import HubCore
from tests.hub_rules import MOMENT, Bucket, Refused, below_folder, bucket_entry, ranged, xet_hash_of

if TYPE_CHECKING:
    from collections.abc import Mapping


class BucketRoutes(HubCore):
    """Buckets, whose files are unversioned, and the storage that they and repos redirect to."""

    def _bucket_routes(self) -> list[web.RouteDef]:
        bucket = "/api/buckets/{owner}/{name}"
        return [
            web.post(bucket, self._create_bucket),
            web.get(bucket, self._bucket_info),
            web.get(bucket + "/tree", self._bucket_tree),
            web.get(bucket + "/tree/{path}", self._bucket_tree),
            web.post(bucket + "/paths-info", self._bucket_paths_info),
            web.post(bucket + "/batch", self._bucket_batch),
            web.get(bucket + "/xet-write-token", self._xet_token),
            web.get("/buckets/{owner}/{name}/resolve/{path:.+}", self._bucket_resolve),
            *self._xet.routes(),
        ]

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
            "createdAt": MOMENT,
            "size": sum(map(len, bucket.files.values())),
            "totalFiles": len(bucket.files),
        }
        return web.json_response(about)

    async def _bucket_tree(self, request: web.Request) -> web.Response:
        files = self._bucket(request).files
        folder = request.match_info.get("path", "").strip("/")
        below = below_folder(files, folder, recursive=request.query.get("recursive", "").lower() == "true")
        return self._paged(request, [bucket_entry(path, files.get(path)) for path in below])

    async def _bucket_paths_info(self, request: web.Request) -> web.Response:
        files = self._bucket(request).files
        wanted = (await request.json())["paths"]
        return web.json_response([bucket_entry(path, files[path]) for path in wanted if path in files])

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
                found = self._xet.with_hash(wanted["xetHash"])
                found = self._stored(wanted) if found is None else found
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
        return next((data for data in files.values() if xet_hash_of(data) == wanted["xetHash"]), None)

    async def _bucket_resolve(self, request: web.Request) -> web.StreamResponse:
        bucket = self._bucket(request)
        data = bucket.files.get(request.match_info["path"])
        if data is None:
            raise Refused(404, "Entry not found", "EntryNotFound")
        headers = {"ETag": f'"{xet_hash_of(data)}"', "X-Xet-Hash": xet_hash_of(data)}
        return self._redirected(data, headers)

    def _redirected(self, data: bytes, headers: Mapping[str, str]) -> web.Response:
        oid = hashlib.sha256(data).hexdigest()
        self.lfs[oid] = data
        linked = {"X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{oid}"'}
        signed = f"{self.storage_url}/lfs/{oid}?signature=secret"
        return web.Response(status=302, headers={**headers, **linked, "Location": signed})

    async def _lfs_get(self, request: web.Request) -> web.StreamResponse:
        oid = request.match_info["oid"]
        return ranged(request, self.lfs[oid], {"ETag": f'"{oid}"'})

    async def _xet_token(self, request: web.Request) -> web.Response:
        if request.match_info.get("type"):
            self._found(request, write=True)
        else:
            self._bucket(request, write=True)
        return web.json_response({"accessToken": "xet-token", "casUrl": self.storage_url, "exp": 4_000_000_000})
