"""`/v1/uploads`: a file that arrives in parts, in any order and several at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.engine.batches.files import expiry_of, put_together, receiving
from orchestrator.server.context import context_of, identity_of
from orchestrator.server.failures import Refused
from orchestrator.server.openai.bodies import CompleteUpload, CreateUpload, json_body
from orchestrator.server.openai.files import check_purpose
from orchestrator.server.openai.multipart import read_form, too_large
from orchestrator.server.openai.objects import answer, part_object, upload_object

if TYPE_CHECKING:
    from aiohttp import web

    from orchestrator.domain.batch import Upload

_LARGEST_PART = 64 << 20


async def create_upload(request: web.Request) -> web.Response:
    """Announce a file that arrives in parts."""
    app, body = context_of(request).app, await json_body(request, CreateUpload)
    check_purpose(body.purpose, body.filename)
    if body.bytes > app.settings.server.max_file_bytes:
        raise too_large(app.settings.server.max_file_bytes)
    upload = await app.store.files.begin_upload(
        owner=identity_of(request).name,
        bytes_=body.bytes,
        filename=body.filename,
        purpose=body.purpose,
        mime_type=body.mime_type,
        expires_after=expiry_of(body.purpose, None if body.expires_after is None else body.expires_after.seconds),
    )
    return answer(upload_object(upload, None))


async def add_part(request: web.Request) -> web.Response:
    """Store a part, which only this upload has."""
    upload = await _found(request)
    async with receiving(context_of(request).app.store) as incoming:
        await read_form(request, "data", incoming.write, most=_LARGEST_PART)
        part = await incoming.keep_as_part(upload)
    return answer(part_object(part))


async def complete_upload(request: web.Request) -> web.Response:
    """Make parts the file, in the order of the body."""
    body = await json_body(request, CompleteUpload)
    file = await put_together(await _found(request), body.part_ids, body.md5, context_of(request).app.store)
    return answer(upload_object(await _found(request), file))


async def cancel_upload(request: web.Request) -> web.Response:
    """Delete the parts."""
    cancelled = await context_of(request).app.store.files.cancel_upload(await _found(request))
    return answer(upload_object(cancelled, None))


async def _found(request: web.Request) -> Upload:
    id_ = request.match_info["id"]
    upload = await context_of(request).app.store.files.find_upload(id_, identity_of(request).only)
    if upload is None:
        raise Refused(404, f"No such Upload object: {id_}", param="id")
    return upload
