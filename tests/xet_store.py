"""The storage behind Xet uploads: keeps the blocks of chunks that `hf_xet` sends, and puts files together again.

A shard names each file's hash and, in order, ranges of chunks in blocks; a block is a sequence of chunks, each behind a
header of eight bytes. A hash in text is its four numbers of 64 bits, each as hexadecimal digits.
"""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING

import orjson
import pyarrow as pa
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENTRY = 48  # bytes of a shard's header and of each of its entries
_VERIFIED, _WITH_METADATA = 1 << 31, 1 << 30  # flags of a file in a shard
_LZ4, _GROUPED_LZ4 = 1, 2


class XetStore:
    """Files that were uploaded by Xet, by their Xet hash."""

    def __init__(self) -> None:
        self._blocks: dict[str, list[bytes]] = {}
        self._files: dict[str, bytes] = {}

    def with_hash(self, xet_hash: str) -> bytes | None:
        """Return the file with this Xet hash. An empty one is not uploaded."""
        return self._files.get(xet_hash, b"" if set(xet_hash) == {"0"} else None)

    def with_sha256(self, sha256: str) -> bytes | None:
        """Return the file with this SHA-256."""
        return next((data for data in self._files.values() if hashlib.sha256(data).hexdigest() == sha256), None)

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the storage."""
        return [
            web.get("/v1/chunks/{prefix}/{hash}", self._no_chunk),
            web.post("/{version:v1|v2}/xorbs/{prefix}/{hash}", self._put_block),
            web.post("/{version:v1|v2}/shards", self._put_shard),
            web.post("/shards", self._put_shard),
        ]

    async def _no_chunk(self, _request: web.Request) -> web.Response:
        return web.Response(status=404)

    async def _put_block(self, request: web.Request) -> web.Response:
        self._blocks[request.match_info["hash"]] = list(_chunks(await request.read()))
        return web.json_response({"was_inserted": True})

    async def _put_shard(self, request: web.Request) -> web.Response:
        for xet_hash, parts in _files(await request.read()):
            chunks = (chunk for block, first, end in parts for chunk in self._blocks[block][first:end])
            self._files[xet_hash] = b"".join(chunks)
        return web.Response(
            body=orjson.dumps({"type": "result", "result": 1}) + b"\n", content_type="application/x-ndjson"
        )


def _chunks(block: bytes) -> Iterator[bytes]:
    at = 0
    while at + 8 <= len(block) and block[at] == 0:  # what follows the chunks begins with another byte
        packed, kind, size = (
            int.from_bytes(part, "little")
            for part in (block[at + 1 : at + 4], block[at + 4 : at + 5], block[at + 5 : at + 8])
        )
        data = block[at + 8 : at + 8 + packed]
        if kind in {_LZ4, _GROUPED_LZ4}:
            data = pa.decompress(data, size, codec="lz4", asbytes=True)
        yield _ungrouped(data) if kind == _GROUPED_LZ4 else data
        at += 8 + packed


def _ungrouped(data: bytes) -> bytes:
    """Return the bytes in their order: the first of every four came first, then the second ..."""
    out, at = bytearray(len(data)), 0
    for place in range(4):
        count = len(range(place, len(data), 4))
        out[place::4] = data[at : at + count]
        at += count
    return bytes(out)


def _files(shard: bytes) -> Iterator[tuple[str, list[tuple[str, int, int]]]]:
    at = _ENTRY
    while shard[at : at + 32] != b"\xff" * 32:
        xet_hash, (flags, entries) = _text(shard[at : at + 32]), struct.unpack_from("<II", shard, at + 32)
        at += _ENTRY
        parts = []
        for _ in range(entries):
            first, end = struct.unpack_from("<II", shard, at + 40)
            parts.append((_text(shard[at : at + 32]), first, end))
            at += _ENTRY
        at += _ENTRY * (entries if flags & _VERIFIED else 0) + (_ENTRY if flags & _WITH_METADATA else 0)
        yield xet_hash, parts


def _text(digest: bytes) -> str:
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", digest))
