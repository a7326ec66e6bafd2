"""`/v1/files`: files in and out as streams."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

import orjson
from aiohttp import web
from anyio import to_thread

from orchestrator.domain.batch import BATCH_INPUT
from orchestrator.engine.batches.files import receiving
from orchestrator.server.context import context_of, identity_of
from orchestrator.server.failures import Refused
from orchestrator.server.openai.bodies import CreateFile, form_body
from orchestrator.server.openai.multipart import read_form
from orchestrator.server.openai.objects import answer, deleted_file, file_object, page_object
from orchestrator.server.openai.queries import page_query

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter

    from orchestrator.domain.batch import StoredFile

PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
_MOST = 10_000  # files of a page, which is also the default
_RANGE = re.compile(r"bytes=(?:-\d+|(?P<first>\d{1,18})-(?P<last>\d{1,18})?)", re.ASCII)  # what aiohttp reads
_HEAD = 1 << 16  # bytes of a batch's input that are looked at before it is stored


async def create_file(request: web.Request) -> web.Response:
    """Store the file of a form. An equal one of the same owner within a minute is the client's retry."""
    context, identity = context_of(request), identity_of(request)
    head = bytearray()
    async with receiving(context.app.store) as incoming:

        async def write(piece: bytes) -> None:
            if len(head) < _HEAD:
                head.extend(piece)
            await incoming.write(piece)

        form = await read_form(request, "file", write, most=context.app.settings.server.max_file_bytes)
        body = form_body(form.fields, CreateFile)
        check_purpose(body.purpose, form.filename)
        if body.purpose == BATCH_INPUT and not _begins_with_an_object(bytes(head)):
            raise _not_jsonl("its first line is not a JSON object")
        file = await incoming.keep(
            owner=identity.name,
            filename=form.filename,
            purpose=body.purpose,
            expires_after=None if body.expires_after is None else body.expires_after.seconds,
        )
    return answer(file_object(file))


async def list_files(request: web.Request) -> web.Response:
    """Return a page of files."""
    page = page_query(request.query, default=_MOST, most=_MOST)
    if page.after is not None and not page.after.startswith("file-"):
        raise _no_file(page.after)
    found, more = await context_of(request).app.store.files.listed(
        identity_of(request).only,
        purpose=request.query.get("purpose") or None,
        after=page.after,
        limit=page.limit,
        newest_first=page.newest_first,
    )
    return answer(page_object([file_object(file) for file in found], more=more))


async def retrieve_file(request: web.Request) -> web.Response:
    """Return a file without its content."""
    return answer(file_object(await _found(request)))


async def delete_file(request: web.Request) -> web.Response:
    """Delete a file. A batch that reads it goes on."""
    id_ = request.match_info["id"]
    if not await context_of(request).app.store.files.delete(id_, identity_of(request).only):
        raise _no_file(id_)
    return answer(deleted_file(id_))


async def file_content(request: web.Request) -> web.StreamResponse:
    """Return a file's content, or the range of it that is asked for."""
    file = await _found(request)
    await to_thread.run_sync(context_of(request).app.store.files.blobs.check, file.sha256)
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(file.filename, safe='')}",
    }
    return _Content(context_of(request).app.store.files.blobs.path(file.sha256), headers=headers)


class _Content(web.FileResponse):
    """A file, or one range of it. Any other header Range is ignored, as RFC 9110 (14.2) allows and clients expect."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        asked = request.headers.get("Range")
        if asked is not None and not _is_one_range(asked):
            kept = [(name, value) for name, value in request.headers.items() if name.lower() != "range"]
            request = request.clone(headers=kept)
        return await super().prepare(request)


def _is_one_range(header: str) -> bool:
    found = _RANGE.fullmatch(header)
    return found is not None and (found["last"] is None or int(found["first"]) <= int(found["last"]))


def check_purpose(purpose: str, filename: str) -> None:
    """Raise `Refused` if clients cannot store a file of this name for this purpose."""
    if purpose not in PURPOSES:
        supported = ", ".join(f"'{one}'" for one in PURPOSES)
        why = f"Invalid value: '{purpose}'. Supported values are: {supported}."
        raise Refused(400, why, code="invalid_value", param="purpose")
    if purpose == BATCH_INPUT and not filename.lower().endswith(".jsonl"):
        raise _not_jsonl(f"the name is {filename!r}")


def _begins_with_an_object(head: bytes) -> bool:
    """Whether the first line is a JSON object, as far as the head of a file shows."""
    line, newline, _ = head.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")
    if not newline and len(head) >= _HEAD:
        return line.startswith(b"{")
    try:
        return isinstance(orjson.loads(line), dict)
    except orjson.JSONDecodeError:
        return False


async def _found(request: web.Request) -> StoredFile:
    id_ = request.match_info["id"]
    file = await context_of(request).app.store.files.find(id_, identity_of(request).only)
    if file is None:
        raise _no_file(id_)
    return file


def _no_file(id_: str) -> Refused:
    return Refused(404, f"No such File object: {id_}", param="id")


def _not_jsonl(why: str) -> Refused:
    return Refused(400, f"Invalid file format for Batch API. Must be .jsonl: {why}", param="file")
