"""Receive files in pieces, and put together those that arrive in parts. Needs the same memory for any size."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from orchestrator.domain.batch import BATCH_INPUT, KEPT_FOR
from orchestrator.domain.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from orchestrator.domain.batch import StoredFile, Upload, UploadPart
    from orchestrator.store import Store
    from orchestrator.store.blobs import NewBlob

_PIECE = 1 << 18  # bytes that are written at once


class IncomingFile:
    """A file that is being received. It is gone after the block of `receiving` unless it was kept."""

    def __init__(self, store: Store, blob: NewBlob) -> None:
        self._store = store
        self._blob = blob
        self._waiting = bytearray()

    async def write(self, content: bytes) -> None:
        """Append to it. Raises `LedgerError` if the disk is full."""
        self._waiting += content
        if len(self._waiting) >= _PIECE:
            await self._flush()

    async def keep(self, *, owner: str, filename: str, purpose: str, expires_after: float | None = None) -> StoredFile:
        """Keep it; return once it is on disk. `expires_after`: in seconds; input of batches is kept for 30 days.

        An equal file that the same owner sent within the last minute is returned instead.
        """
        await self._complete()
        expires_after = expiry_of(purpose, expires_after)
        return await self._store.files.add(
            self._blob, owner=owner, filename=filename, purpose=purpose, expires_after=expires_after
        )

    async def keep_as_part(self, upload: Upload) -> UploadPart:
        """Keep it as a part of an upload. Raises `UsageError` if the upload is not pending."""
        await self._complete()
        return await self._store.files.add_part(self._blob, upload)

    async def append(self, path: Path) -> None:
        """Append the content of a file."""
        await self._flush()
        await to_thread.run_sync(_copy, path, self._blob)

    async def md5(self) -> str:
        """Return the MD5 of what has been received so far, in hexadecimal."""
        await self._flush()
        return await to_thread.run_sync(self._blob.md5)

    async def complete(self, upload: Upload) -> StoredFile:
        """Keep it as the file of an upload, whose parts are deleted. Raises `UsageError` if it is not pending."""
        await self._complete()
        return await self._store.files.complete_upload(self._blob, upload)

    async def _flush(self) -> None:
        content, self._waiting = bytes(self._waiting), bytearray()
        await to_thread.run_sync(self._blob.write, content)

    async def _complete(self) -> None:
        await self._flush()
        await to_thread.run_sync(self._blob.sync)


@asynccontextmanager
async def receiving(store: Store) -> AsyncIterator[IncomingFile]:
    """Yield a file to write to and to keep. If it is not kept, or the block raises, nothing of it stays."""
    async with opened_blob(store) as blob:
        yield IncomingFile(store, blob)


@asynccontextmanager
async def opened_blob(store: Store) -> AsyncIterator[NewBlob]:
    """Yield a content to be written, in threads; it is gone after the block unless the ledger has placed it."""
    opened = store.files.blobs.new()
    blob = await to_thread.run_sync(opened.__enter__)
    try:
        yield blob
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(opened.__exit__, None, None, None)


def expiry_of(purpose: str, expires_after: float | None) -> float | None:
    """Return for how many seconds a file is kept; None for always."""
    return KEPT_FOR if expires_after is None and purpose == BATCH_INPUT else expires_after


async def put_together(upload: Upload, part_ids: Sequence[str], md5: str | None, store: Store) -> StoredFile:
    """Make the parts, in this order, the upload's file. `md5`: in hexadecimal, of the whole file, if it is known.

    Raises `UsageError` if the upload is not pending, a part is unknown, or they are not together what was announced.
    """
    parts = {part.id: part for part in await store.files.parts(upload)}
    if unknown := [id_ for id_ in part_ids if id_ not in parts]:
        raise UsageError(f"upload {upload.id} has no part {unknown[0]!r}")
    if (size := sum(parts[id_].bytes for id_ in part_ids)) != upload.bytes:
        raise UsageError(f"upload {upload.id}: the parts have {size:,} bytes together, not {upload.bytes:,}")
    async with receiving(store) as incoming:
        for id_ in part_ids:
            await to_thread.run_sync(store.files.blobs.check, parts[id_].sha256)
            await incoming.append(store.files.blobs.path(parts[id_].sha256))
        if md5 is not None and await incoming.md5() != md5.lower():
            raise UsageError(f"upload {upload.id}: the parts do not have the MD5 {md5} together")
        return await incoming.complete(upload)


def _copy(source: Path, target: NewBlob) -> None:
    try:
        with source.open("rb") as file:
            while piece := file.read(_PIECE):
                target.write(piece)
    except FileNotFoundError as error:
        raise UsageError("the upload has ended meanwhile: begin another one") from error
