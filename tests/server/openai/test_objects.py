"""Objects as JSON: whole, and what the types of the `openai` package ask for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.domain.batch import (
    Batch,
    BatchProgress,
    BatchStatus,
    BatchUsage,
    StoredFile,
    Upload,
    UploadPart,
    UploadState,
)
from orchestrator.domain.batch_lines import BatchError
from orchestrator.server.openai.objects import (
    batch_object,
    file_object,
    model_object,
    page_object,
    part_object,
    upload_object,
)

types = pytest.importorskip("openai.types")
uploads = pytest.importorskip("openai.types.uploads")
FILE = StoredFile("file-1", "ann", "00", 12, "night.jsonl", "batch", 1000.9, None)
UPLOAD = Upload(
    "upload_1", "ann", UploadState.PENDING, 12, "night.jsonl", "batch", "text/plain", None, 1000.9, 4600.9, None
)
BATCH = Batch("batch_1", "ann", "/v1/responses", "file-1", "00", "24h", None, None, 1000.9, 87400.9)


def shown(batch: Batch, usage: BatchUsage | None = None, **counts: int) -> dict[str, Any]:
    found = batch_object(BatchProgress(batch, None, counts.get("completed", 0), counts.get("failed", 0), usage))
    types.Batch.model_validate(found, strict=True)
    return found


def test_a_file_an_upload_a_part_and_a_model_are_what_the_package_expects() -> None:
    file = file_object(FILE)
    types.FileObject.model_validate(file, strict=True)
    assert (file["created_at"], file["expires_at"]) == (1000, None)
    assert file_object(replace(FILE, expires_at=2000.9))["expires_at"] == 2000
    types.Upload.model_validate(upload_object(UPLOAD, None), strict=True)
    complete = upload_object(replace(UPLOAD, state=UploadState.COMPLETED, file_id="file-1"), FILE)
    types.Upload.model_validate(complete, strict=True)
    assert complete["file"] == file
    part = part_object(UploadPart("part_1", "upload_1", "00", 12, 1000.9))
    uploads.UploadPart.model_validate(part, strict=True)
    types.Model.model_validate(model_object("m", ["a", "b"]), strict=True)


def test_a_page_names_its_first_and_last_object() -> None:
    assert page_object([], more=False) == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }
    page = page_object([{"id": "a"}, {"id": "b"}], more=True)
    assert (page["first_id"], page["last_id"], page["has_more"]) == ("a", "b", True)


def test_a_batch_that_is_validated_has_no_counts_no_usage_and_no_files() -> None:
    found = shown(BATCH)
    assert found["status"] == "validating"
    assert found["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    unknown = {name for name, value in found.items() if value is None}
    assert unknown >= {"errors", "usage", "model", "metadata", "output_file_id", "error_file_id", "in_progress_at"}


@pytest.mark.parametrize("end", ["completed", "failed", "expired", "cancelled"])
def test_a_batch_that_has_ended_says_when_in_the_field_of_its_status(end: str) -> None:
    found = shown(replace(BATCH, ended_at=2000.9, ended_as=BatchStatus(end)))
    assert found["status"] == end
    ends = ("completed", "failed", "expired", "cancelled")
    assert {name: found[f"{name}_at"] for name in ends} == {name: 2000 if name == end else None for name in ends}


def test_usage_and_errors_are_whole() -> None:
    ended = replace(BATCH, errors=(BatchError("invalid_json_line", "not JSON", line=3),))
    found = shown(ended, BatchUsage(10, 4, 20, 5))
    assert found["errors"] == {
        "object": "list",
        "data": [{"code": "invalid_json_line", "message": "not JSON", "param": None, "line": 3}],
    }
    assert found["usage"] == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 5},
        "total_tokens": 30,
    }
