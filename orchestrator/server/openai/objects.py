"""OpenAI's objects as JSON. Each is whole: what is not known is null, because clients read every field."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, TypeAlias

import orjson
from aiohttp import web

from orchestrator.domain.batch import BatchStatus, UploadState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orchestrator.domain.batch import BatchProgress, BatchUsage, StoredFile, Upload, UploadPart
    from orchestrator.domain.batch_lines import BatchError

Json: TypeAlias = dict[str, object]
_ENDS = (BatchStatus.COMPLETED, BatchStatus.FAILED, BatchStatus.EXPIRED, BatchStatus.CANCELLED)


def answer(value: Json) -> web.Response:
    """Return the response with an object."""
    return web.Response(body=orjson.dumps(value), content_type="application/json")


def file_object(file: StoredFile) -> Json:
    """Return a file; its deprecated `status`, which clients require, is always the same."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": int(file.created_at),
        "expires_at": _second(file.expires_at),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def upload_object(upload: Upload, file: StoredFile | None) -> Json:
    """Return a file that arrives in parts, with the file that it has become once it is complete."""
    return {
        "id": upload.id,
        "object": "upload",
        "bytes": upload.bytes,
        "created_at": int(upload.created_at),
        "expires_at": int(upload.expires_at),
        "filename": upload.filename,
        "purpose": upload.purpose,
        "status": str(upload.state),
        "file": None if file is None or upload.state is not UploadState.COMPLETED else file_object(file),
    }


def part_object(part: UploadPart) -> Json:
    """Return a part of an upload."""
    return {"id": part.id, "object": "upload.part", "created_at": int(part.created_at), "upload_id": part.upload_id}


def batch_object(progress: BatchProgress) -> Json:
    """Return a batch with its counts as they are now."""
    batch = progress.batch
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model,
        "errors": _errors(batch.errors),
        "input_file_id": batch.input_file_id,
        "completion_window": batch.completion_window,
        "status": str(progress.status),
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "created_at": int(batch.created_at),
        "in_progress_at": _second(batch.in_progress_at),
        "expires_at": int(batch.expires_at),
        "finalizing_at": _second(batch.finalizing_at),
        **{f"{end}_at": _second(batch.ended_at) if batch.ended_as is end else None for end in _ENDS},
        "cancelling_at": _second(batch.cancelling_at),
        "request_counts": {
            "total": progress.total,
            "completed": progress.completed,
            "failed": progress.failed,
        },
        "usage": _usage(progress.usage),
        "metadata": None if batch.metadata is None else dict(batch.metadata),
    }


def model_object(model: str, endpoints: Sequence[str]) -> Json:
    """Return a model, which the endpoints that serve it own. When it was made is not known."""
    return {"id": model, "object": "model", "created": 0, "owned_by": ", ".join(endpoints)}


def deleted_file(file_id: str) -> Json:
    """Return the answer to the deletion of a file."""
    return {"id": file_id, "object": "file", "deleted": True}


def page_object(objects: Sequence[Json], *, more: bool) -> Json:
    """Return a page of a list. `more`: whether there are objects behind it."""
    first, last = (objects[0]["id"], objects[-1]["id"]) if objects else (None, None)
    return {"object": "list", "data": objects, "first_id": first, "last_id": last, "has_more": more}


def _errors(errors: Iterable[BatchError]) -> Json | None:
    data = [asdict(error) for error in errors]
    return {"object": "list", "data": data} if data else None


def _usage(usage: BatchUsage | None) -> Json | None:
    if usage is None:
        return None
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _second(moment: float | None) -> int | None:
    return None if moment is None else int(moment)
