"""The fake Hub without its routes: what a test does with it, who may do what, trouble. See `hub_server`."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from abc import ABC, abstractmethod
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from aiohttp import web

from tests.hub_rules import Account, Bucket, Commit, Refused, Repo, Seen, Trouble, cut_or_refused
from tests.xet_store import XetStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from concurrent.futures import Future
    from pathlib import Path

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HubCore(ABC):
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

    @abstractmethod
    def _routes(self) -> list[web.RouteDef]:
        """Return what it answers."""

    @web.middleware
    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization")
        token = given.removeprefix("Bearer ") if given else None
        storage = request.host == self.storage_url.removeprefix("http://")
        seen = Seen(request.method, request.path_qs, request.headers.get("Range"), token, storage)
        self.requests.append(seen)
        try:
            if (trouble := self._due(seen)) is not None:
                if trouble.silent:
                    await self._ended.wait()
                if trouble.lost:
                    await handler(request)
                if trouble.meanwhile is None:
                    return await cut_or_refused(request, trouble)
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
