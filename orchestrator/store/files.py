"""Transitions of files and uploads: added, deleted, expired; their contents are in `blobs.py`."""

from __future__ import annotations

import time
from secrets import token_hex
from typing import TYPE_CHECKING

import orjson
from anyio import to_thread

from orchestrator.domain.batch import SAME_WITHIN, StoredFile, Upload, UploadPart, UploadState
from orchestrator.domain.errors import UsageError
from orchestrator.store.blobs import Blobs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orchestrator.store.blobs import NewBlob
    from orchestrator.store.connection import AsyncConnection, LedgerRow
    from orchestrator.store.database import Database

_UPLOAD_FOR = 3600.0  # seconds for which the parts of an upload are waited for
_FILE = "SELECT id, owner, sha256, bytes, filename, purpose, created_at, expires_at FROM file f"
_IS_THERE = "(f.expires_at IS NULL OR f.expires_at > :now)"
_VISIBLE = f"(:owner IS NULL OR f.owner = :owner) AND {_IS_THERE}"
_ONE = f"{_FILE} WHERE f.id = :id AND {_VISIBLE}"
_SAME = f"""
{_FILE} WHERE f.sha256 = :sha256 AND f.owner = :owner AND f.filename = :filename AND f.purpose = :purpose
AND f.created_at BETWEEN :now - {SAME_WITHIN} AND :now AND {_IS_THERE} ORDER BY f.number DESC LIMIT 1
"""
_ADD = """
INSERT INTO file (id, owner, sha256, bytes, filename, purpose, created_at, expires_at)
VALUES (:id, :owner, :sha256, :bytes, :filename, :purpose, :now, :expires_at)
"""
_LISTED = {
    order: f"""
{_FILE} WHERE {_VISIBLE} AND (:purpose IS NULL OR f.purpose = :purpose)
AND (:after IS NULL OR f.id {beyond} :after) ORDER BY f.id {order} LIMIT :limit
"""
    for order, beyond in (("desc", "<"), ("asc", ">"))
}
_DELETE = "DELETE FROM file WHERE id = :id AND (:owner IS NULL OR owner = :owner) RETURNING sha256"
_EXPIRED = """
DELETE FROM file WHERE number IN (SELECT number FROM file WHERE expires_at <= :now LIMIT 1000) RETURNING sha256
"""
# an unfinished batch still reads its input, whether or not there is a file with it
_UNUSED = """
SELECT v.value FROM json_each(:contents) v WHERE NOT EXISTS (SELECT 1 FROM file f WHERE f.sha256 = v.value)
AND NOT EXISTS (SELECT 1 FROM upload_part p WHERE p.sha256 = v.value)
AND NOT EXISTS (SELECT 1 FROM batch b WHERE b.ended_at IS NULL AND b.input_sha256 = v.value)
"""
IN_USE = """
SELECT sha256 FROM file UNION SELECT sha256 FROM upload_part
UNION SELECT input_sha256 FROM batch WHERE ended_at IS NULL AND input_sha256 IS NOT NULL
"""
_UPLOAD = """
SELECT number, id, owner, state, bytes, filename, purpose, mime_type, expires_after, created_at, expires_at, file_id
FROM upload
"""
_ONE_UPLOAD = f"{_UPLOAD} WHERE id = :id AND (:owner IS NULL OR owner = :owner)"
_ADD_UPLOAD = """
INSERT INTO upload (id, owner, state, bytes, filename, purpose, mime_type, expires_after, created_at, expires_at)
VALUES (:id, :owner, 'pending', :bytes, :filename, :purpose, :mime_type, :expires_after, :now, :expires_at)
"""
_ADD_PART = """
INSERT INTO upload_part (id, upload, sha256, bytes, created_at)
SELECT :id, number, :sha256, :bytes, :now FROM upload WHERE id = :upload AND state = 'pending' AND expires_at > :now
"""
_PARTS = "SELECT id, sha256, bytes, created_at FROM upload_part WHERE upload = :upload"
_END_UPLOAD = "UPDATE upload SET state = :state, file_id = :file WHERE number = :upload AND state = 'pending'"
_DROP_PARTS = "DELETE FROM upload_part WHERE upload = :upload RETURNING sha256"
_LATE_UPLOADS = "SELECT number FROM upload WHERE state = 'pending' AND expires_at <= :now LIMIT 100"


class Files:
    """Files and uploads. An `owner` of None means those of everybody."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.blobs = Blobs(database.real_path)

    async def add(
        self, blob: NewBlob, *, owner: str, filename: str, purpose: str, expires_after: float | None
    ) -> StoredFile:
        """Keep a synced content as a file. An equal upload a moment ago is the client's retry: it is that file."""
        async with self._database.write() as connection:
            await to_thread.run_sync(self.blobs.place, blob)
            about = {"owner": owner, "filename": filename, "purpose": purpose}
            return await add_file(connection, about, blob.sha256, blob.size, expires_after)

    async def find(self, id_: str, owner: str | None) -> StoredFile | None:
        """The file with this id; None if there is none, it is another owner's, or it has expired."""
        values = {"id": id_, "owner": owner, "now": time.time()}
        async with self._database.read() as connection:
            row = (await connection.execute(_ONE, values)).one_or_none()
            return None if row is None else StoredFile(*row)

    async def listed(
        self,
        owner: str | None,
        *,
        purpose: str | None = None,
        after: str | None = None,
        limit: int,
        newest_first: bool = True,
    ) -> tuple[list[StoredFile], bool]:
        """Files by their creation, from behind the file `after`, which may be deleted, and whether there are more."""
        order = "desc" if newest_first else "asc"
        values = {"owner": owner, "purpose": purpose, "after": after, "limit": limit + 1, "now": time.time()}
        async with self._database.read() as connection:
            rows = (await connection.execute(_LISTED[order], values)).all()
        return [StoredFile(*row) for row in rows[:limit]], len(rows) > limit

    async def delete(self, id_: str, owner: str | None) -> bool:
        """Delete a file; False if there is none. Its content stays while another file or unfinished batch has it."""
        async with self._database.write() as connection:
            deleted = (await connection.execute(_DELETE, {"id": id_, "owner": owner})).scalars()
        await self.drop_unused(deleted)
        return bool(deleted)

    async def expire(self, now: float) -> None:
        """Delete files and uploads whose time is up."""
        contents: list[str] = []
        async with self._database.write() as connection:
            while some := (await connection.execute(_EXPIRED, {"now": now})).scalars():
                contents += some
            for number in (await connection.execute(_LATE_UPLOADS, {"now": now})).scalars():
                contents += await _end_upload(connection, number, UploadState.EXPIRED)
        await self.drop_unused(contents)

    async def drop_unused(self, contents: Iterable[str]) -> None:
        """Remove those of these contents that nothing refers to."""
        wanted = sorted(set(contents))
        for start in range(0, len(wanted), 100):
            async with self._database.write() as connection:
                some = orjson.dumps(wanted[start : start + 100]).decode()
                for sha256 in (await connection.execute(_UNUSED, {"contents": some})).scalars():
                    await to_thread.run_sync(self.blobs.drop, sha256)

    # -- uploads ------------------------------------------------------------------------------------------------------

    async def begin_upload(
        self, *, owner: str, bytes_: int, filename: str, purpose: str, mime_type: str, expires_after: float | None
    ) -> Upload:
        """Announce a file that arrives in parts within an hour."""
        now, id_ = time.time(), f"upload_{token_hex(16)}"
        values = {"id": id_, "owner": owner, "bytes": bytes_, "filename": filename, "purpose": purpose}
        values |= {"mime_type": mime_type, "expires_after": expires_after, "now": now, "expires_at": now + _UPLOAD_FOR}
        async with self._database.write() as connection:
            await connection.execute(_ADD_UPLOAD, values)
            return (await _upload(connection, id_, owner))[1]

    async def find_upload(self, id_: str, owner: str | None) -> Upload | None:
        """The upload with this id; None if there is none, or it is another owner's."""
        async with self._database.read() as connection:
            row = (await connection.execute(_ONE_UPLOAD, {"id": id_, "owner": owner})).one_or_none()
            return None if row is None else _as_upload(row)

    async def add_part(self, blob: NewBlob, upload: Upload) -> UploadPart:
        """Keep a synced content as a part. Raises `UsageError` if the upload is not pending."""
        now, id_ = time.time(), f"part_{token_hex(16)}"
        values = {"id": id_, "upload": upload.id, "sha256": blob.sha256, "bytes": blob.size, "now": now}
        async with self._database.write() as connection:
            if (await connection.execute(_ADD_PART, values)).rowcount == 0:
                raise UsageError(f"upload {upload.id} takes no more parts: begin another one")
            await to_thread.run_sync(self.blobs.place, blob)
        return UploadPart(id_, upload.id, blob.sha256, blob.size, now)

    async def parts(self, upload: Upload) -> list[UploadPart]:
        """All parts of an upload, in any order."""
        async with self._database.read() as connection:
            number = (await _upload(connection, upload.id, None))[0]
            rows = (await connection.execute(_PARTS, {"upload": number})).all()
        return [UploadPart(id_, upload.id, sha256, size, at) for id_, sha256, size, at in rows]

    async def complete_upload(self, blob: NewBlob, upload: Upload) -> StoredFile:
        """Keep a synced content, which the parts make up, as the upload's file; its parts are deleted."""
        about = {"owner": upload.owner, "filename": upload.filename, "purpose": upload.purpose}
        async with self._database.write() as connection:
            number, now = await _upload(connection, upload.id, None)
            if now.state is not UploadState.PENDING:
                raise UsageError(f"upload {upload.id} is {now.state}: begin another one")
            await to_thread.run_sync(self.blobs.place, blob)
            file = await add_file(connection, about, blob.sha256, blob.size, upload.expires_after)
            contents = await _end_upload(connection, number, UploadState.COMPLETED, file.id)
        await self.drop_unused(contents)
        return file

    async def cancel_upload(self, upload: Upload) -> Upload:
        """Delete the parts of a pending upload. An upload that has ended is unchanged; return it as it is then."""
        async with self._database.write() as connection:
            number, _ = await _upload(connection, upload.id, None)
            contents = await _end_upload(connection, number, UploadState.CANCELLED)
            ended = (await _upload(connection, upload.id, None))[1]
        await self.drop_unused(contents)
        return ended


async def add_file(
    connection: AsyncConnection, about: dict[str, str], sha256: str, size: int, expires_after: float | None
) -> StoredFile:
    """Insert a file over a placed content, or return an equal one of a moment ago.

    `about`: its owner, filename and purpose.
    """
    now, moment = time.time(), time.time_ns()  # ids in the order of creation keep a client's place in a list
    same = (await connection.execute(_SAME, {**about, "sha256": sha256, "now": now})).one_or_none()
    if same is not None:
        return StoredFile(*same)
    expires_at = None if expires_after is None else now + expires_after
    file = StoredFile(
        f"file-{moment:016x}{token_hex(8)}",
        about["owner"],
        sha256,
        size,
        about["filename"],
        about["purpose"],
        now,
        expires_at,
    )
    values = {**about, "id": file.id, "sha256": sha256, "bytes": size, "now": now, "expires_at": expires_at}
    await connection.execute(_ADD, values)
    return file


async def _end_upload(
    connection: AsyncConnection, number: int, state: UploadState, file: str | None = None
) -> Sequence[str]:
    """End a pending upload; return the contents of its parts."""
    ended = await connection.execute(_END_UPLOAD, {"upload": number, "state": state.value, "file": file})
    if ended.rowcount == 0:
        return []
    return (await connection.execute(_DROP_PARTS, {"upload": number})).scalars()


async def _upload(connection: AsyncConnection, id_: str, owner: str | None) -> tuple[int, Upload]:
    row = (await connection.execute(_ONE_UPLOAD, {"id": id_, "owner": owner})).one()
    return row.number, _as_upload(row)


def _as_upload(row: LedgerRow) -> Upload:
    _, id_, owner, state, *rest = tuple(row)
    return Upload(id_, owner, UploadState(state), *rest)
