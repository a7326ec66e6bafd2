"""The files that the pages load: style sheets, scripts and an icon, from this package and that of the report."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Mapping

_FOREVER = "public, max-age=31536000, immutable"
_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml", "txt": "text/plain"}
_FILES = {
    "report.css": ("orchestrator.report", "page.css"),  # the colours, tables and charts that pages and reports share
    **{
        name: ("orchestrator.server.page.static", name)
        for name in (
            "page.css",
            "views.css",
            "app.js",
            "icon.svg",
            "uPlot.iife.min.js",
            "uPlot.min.css",
            "uPlot.LICENSE.txt",
        )
    },
}


@dataclass(frozen=True, slots=True)
class Assets:
    """The content of each file. Its address holds a hash of all of them, so browsers may keep it for ever."""

    contents: Mapping[str, bytes]
    version: str

    @classmethod
    def read(cls) -> Assets:
        """Read all files."""
        contents = {name: files(package).joinpath(file).read_bytes() for name, (package, file) in _FILES.items()}
        return cls(contents, hashlib.sha256(b"".join(contents.values())).hexdigest()[:16])

    def url(self, name: str) -> str:
        """Return the address of a file."""
        return f"/static/{self.version}/{name}"

    async def serve(self, request: web.Request) -> web.Response:
        """Answer with a file. The address of another version is not found, so that no browser keeps it wrongly."""
        name, content = request.match_info["name"], self.contents.get(request.match_info["name"])
        if content is None or request.match_info["version"] != self.version:
            raise web.HTTPNotFound
        kind = _TYPES[name.rpartition(".")[2]]
        return web.Response(body=content, content_type=kind, charset="utf-8", headers={"Cache-Control": _FOREVER})


ASSETS = Assets.read()
