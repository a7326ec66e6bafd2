"""The `openai` package, unmodified, against a real server process: the guide of the Batch API, and its failures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.server.openai.conftest import ENDS, GUIDE, MODEL, NAMED, client_of, created, jsonl, line, parsed, poll

openai = pytest.importorskip("openai")

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from openai import OpenAI

    from tests.server.conftest import HttpServer
    from tests.servers import InferenceServer

DAY: Any = {"anchor": "created_at", "seconds": 86400}


# -- the guide ---------------------------------------------------------------------------------------------------------


def test_a_file_is_stored_as_it_was_sent_and_expires_as_asked(client: OpenAI, tmp_path: Path) -> None:
    path = tmp_path / NAMED
    path.write_bytes(jsonl([line("a", "first")]))
    with path.open("rb") as opened:
        file = client.files.create(file=opened, purpose="batch", expires_after=DAY)
    assert (file.object, file.filename, file.purpose, file.status) == ("file", NAMED, "batch", "processed")
    assert file.bytes == path.stat().st_size
    assert file.expires_at == file.created_at + 86400
    assert client.files.retrieve(file.id) == file
    assert client.files.wait_for_processing(file.id) == file
    assert client.files.content(file.id).content == path.read_bytes()


def test_the_guide_of_the_batch_api_works_to_the_letter(client: OpenAI, tmp_path: Path) -> None:
    path = tmp_path / NAMED
    path.write_bytes(jsonl([line("a", "first"), line("b", "poison"), line("c", "third")]))
    file = client.files.create(file=path, purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, metadata={"description": "nightly"}, output_expires_after=DAY, **GUIDE
    )
    assert batch.object == "batch"
    assert batch.expires_at == batch.created_at + 86400
    assert batch.status in {"validating", "in_progress", "finalizing", "completed"}
    batch = poll(client, batch)
    assert (batch.status, batch.model, batch.errors) == ("completed", MODEL, None)
    assert batch.metadata == {"description": "nightly"}
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 3, "completed": 2, "failed": 1}
    assert batch.usage is not None
    assert batch.usage.to_dict() == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 10,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 20,
    }
    assert batch.in_progress_at is not None
    assert batch.finalizing_at is not None
    assert batch.completed_at is not None
    assert batch.output_file_id is not None
    assert batch.error_file_id is not None
    assert client.batches.list().data == [batch]
    with pytest.raises(openai.ConflictError, match="Cannot cancel a batch with status 'completed'") as conflict:
        client.batches.cancel(batch.id)
    assert conflict.value.response.headers["x-should-retry"] == "false"
    assert conflict.value.request.headers["x-stainless-retry-count"] == "0"

    output = client.files.content(batch.output_file_id)
    answers = parsed(output.content)
    assert [answer["custom_id"] for answer in answers] == ["a", "c"]
    assert [answer["error"] for answer in answers] == [None, None]
    assert {answer["response"]["status_code"] for answer in answers} == {200}
    said = [answer["response"]["body"]["choices"][0]["message"]["content"] for answer in answers]
    assert said == ["tsrif", "driht"]
    (refused,) = parsed(client.files.content(batch.error_file_id).content)
    assert (refused["custom_id"], refused["error"]) == ("b", None)
    assert refused["response"]["status_code"] == 400
    assert refused["response"]["body"]["error"] == "this input is poison"
    listed = {found.id: found for found in client.files.list()}
    assert set(listed) == {file.id, batch.output_file_id, batch.error_file_id}
    found = listed[batch.output_file_id]
    assert (found.purpose, found.expires_at) == ("batch_output", found.created_at + 86400)

    copy = tmp_path / "copy.jsonl"
    with client.files.with_streaming_response.content(batch.output_file_id) as streamed:
        streamed.stream_to_file(copy)
    assert copy.read_bytes() == output.content
    for file_id in listed:
        deleted = client.files.delete(file_id)
        assert (deleted.id, deleted.object, deleted.deleted) == (file_id, "file", True)
    assert not client.files.list().data
    assert client.batches.retrieve(batch.id) == batch


async def test_the_asynchronous_client_works_as_well(batch_server: HttpServer) -> None:
    async with openai.AsyncOpenAI(base_url=f"{batch_server.url}/v1", api_key=batch_server.token) as client:
        assert [model.id async for model in client.models.list()] == [MODEL]
        file = await client.files.create(file=(NAMED, jsonl([line("a", "first")])), purpose="batch")
        batch = await client.batches.create(input_file_id=file.id, **GUIDE)
        while batch.status not in ENDS:
            batch = await client.batches.retrieve(batch.id)
        assert batch.status == "completed"
        content = await client.files.content(batch.output_file_id)
        assert [answer["custom_id"] for answer in parsed(content.content)] == ["a"]
        assert [found.id async for found in client.batches.list()] == [batch.id]


def test_a_large_file_arrives_in_parts(client: OpenAI) -> None:
    content = jsonl(line(f"i{number}", "word " * 100) for number in range(50))
    upload = client.uploads.upload_file_chunked(
        file=content,
        filename=NAMED,
        bytes=len(content),
        mime_type="application/jsonl",
        purpose="batch",
        part_size=7_000,
    )
    assert (upload.status, upload.file is not None) == ("completed", True)
    assert upload.file is not None
    assert client.files.content(upload.file.id).content == content


def test_the_bad_lines_of_a_file_are_all_listed_and_nothing_is_asked(client: OpenAI, server: InferenceServer) -> None:
    batch = created(
        client, line("a", "first"), line("a", "again"), line("b", "x", url="/v1/embeddings"), {"custom_id": "c"}
    )
    batch = poll(client, batch)
    assert batch.status == "failed"
    assert batch.failed_at is not None
    assert batch.errors is not None
    assert batch.errors.object == "list"
    found = {(error.line, error.code) for error in batch.errors.data or []}
    assert {(2, "duplicate_custom_id"), (3, "invalid_url"), (4, "missing_required_parameter")} <= found
    assert not server.stats().requests
    batch = poll(client, client.batches.create(input_file_id="file-none", **GUIDE))
    assert batch.errors is not None
    assert [(error.code, error.line) for error in batch.errors.data or []] == [("invalid_request", None)]


def test_a_cancelled_batch_keeps_what_was_answered(client: OpenAI, server: InferenceServer) -> None:
    server.behave(hold_after=2)
    batch = created(client, *(line(f"i{number}", f"text {number}") for number in range(5)))
    poll(client, batch, lambda found: found.request_counts is not None and found.request_counts.completed == 2)
    assert client.batches.cancel(batch.id).status in {"cancelling", "cancelled"}
    server.behave()
    batch = poll(client, batch)
    assert (batch.status, batch.cancelled_at is not None) == ("cancelled", True)
    assert batch.output_file_id is not None
    assert len(parsed(client.files.content(batch.output_file_id).content)) >= 2
    assert client.batches.cancel(batch.id).status == "cancelled"


# -- lists -------------------------------------------------------------------------------------------------------------


def test_lists_are_read_page_by_page_in_either_order(client: OpenAI) -> None:
    files = [
        client.files.create(file=(f"{n}.jsonl", jsonl([line(f"i{n}", "x")])), purpose="batch").id for n in range(5)
    ]
    newest = list(reversed(files))
    assert [file.id for file in client.files.list()] == newest
    assert [file.id for file in client.files.list(limit=2)] == newest
    assert [file.id for file in client.files.list(limit=2, order="asc")] == files
    page = client.files.list(limit=2, after=files[3])
    assert ([file.id for file in page.data], page.has_more) == ([files[2], files[1]], True)
    page = client.files.list(limit=2, after=files[2])
    assert ([file.id for file in page.data], page.has_more) == ([files[1], files[0]], False)
    assert not client.files.list(after=files[0]).data
    assert not client.files.list(purpose="fine-tune").data
    batches = [client.batches.create(input_file_id=file, **GUIDE).id for file in files]
    assert [batch.id for batch in client.batches.list(limit=2)] == batches[::-1]
    assert [batch.id for batch in client.batches.list(after=batches[1])] == [batches[0]]


def test_files_can_be_deleted_while_they_are_listed(client: OpenAI) -> None:
    for number in range(5):
        client.files.create(file=(f"{number}.jsonl", jsonl([line(f"i{number}", "x")])), purpose="batch")
    for file in client.files.list(limit=2):
        client.files.delete(file.id)
    assert not client.files.list().data


# -- retries -----------------------------------------------------------------------------------------------------------


def test_an_equal_request_within_a_minute_is_the_clients_retry(client: OpenAI) -> None:
    content = jsonl([line("a", "first")])
    files = [client.files.create(file=(NAMED, content), purpose="batch").id for _ in range(2)]
    assert files[0] == files[1]
    batches = [client.batches.create(input_file_id=files[0], **GUIDE).id for _ in range(2)]
    assert batches[0] == batches[1]
    other = client.batches.create(input_file_id=files[0], metadata={"k": "v"}, **GUIDE)
    assert other.id != batches[0]
    assert len(client.batches.list().data) == 2


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_what_does_not_exist_is_not_found(client: OpenAI) -> None:
    for call in (
        lambda: client.files.retrieve("file-none"),
        lambda: client.files.content("file-none"),
        lambda: client.files.delete("file-none"),
        lambda: client.batches.retrieve("batch_none"),
        lambda: client.batches.cancel("batch_none"),
        lambda: client.uploads.cancel("upload_none"),
        lambda: client.uploads.complete("upload_none", part_ids=["part_none"]),
        lambda: client.uploads.parts.create("upload_none", data=b"x"),
        lambda: client.models.retrieve("none/m"),
        lambda: client.chat.completions.create(model=MODEL, messages=[]),
    ):
        with pytest.raises(openai.NotFoundError) as refused:
            call()
        assert refused.value.request_id
        assert "\n" not in refused.value.message
    with pytest.raises(openai.NotFoundError, match="No batch found with id 'batch_none'"):
        client.batches.retrieve("batch_none")


def test_what_cannot_be_meant_is_refused_at_once_and_nothing_is_left(client: OpenAI) -> None:
    content = jsonl([line("a", "first")])
    for name, body, purpose in (
        ("night.json", content, "batch"),
        (NAMED, b"", "batch"),
        (NAMED, b"\n\n", "batch"),
        (NAMED, b"custom_id,body\n", "batch"),
        (NAMED, content, "nonsense"),
    ):
        with pytest.raises(openai.BadRequestError):
            client.files.create(file=(name, body), purpose=purpose)  # type: ignore[arg-type]  # as users do
    assert not client.files.list().data
    file = client.files.create(file=(NAMED, content), purpose="batch")
    for wrong, param in (
        ({"endpoint": "/v1/images/edits"}, "endpoint"),
        ({"completion_window": "1y"}, "completion_window"),
        ({"completion_window": ""}, "completion_window"),
        ({"metadata": {"tags": ["a"]}}, "metadata.tags"),
        ({"metadata": {"priority": "high"}}, "metadata"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            client.batches.create(input_file_id=file.id, **{**GUIDE, **wrong})
        assert refused.value.param == param
    assert not client.batches.list().data


def test_a_wrong_token_is_an_invalid_api_key(batch_server: HttpServer) -> None:
    with client_of(batch_server, "sk-wrong") as client:
        with pytest.raises(openai.AuthenticationError) as refused:
            client.models.list()
        assert (refused.value.code, refused.value.type) == ("invalid_api_key", "invalid_request_error")


def test_a_file_over_the_limit_is_refused(
    start_server: Callable[..., AbstractContextManager[HttpServer]], config: str, workplace: Any
) -> None:
    with start_server(f"{config}[server]\nmax_file_bytes = 10000\n") as server, client_of(server) as client:
        for size in (10_001, 1_000_000):
            with pytest.raises(openai.APIStatusError, match="larger than 10,000 bytes") as refused:
                client.files.create(file=(NAMED, b"{" * size), purpose="batch")
            assert refused.value.status_code == 413
        assert not client.files.list().data


def test_what_belongs_to_another_owner_is_not_there(
    start_server: Callable[..., AbstractContextManager[HttpServer]], config: str
) -> None:
    names = {"ann": "token-of-ann-of-the-tests", "ben": "token-of-ben-of-the-tests"}
    for name in names:
        config += f'[server.tokens.{name}]\nrole = "run"\ntoken_env = "TOKEN_{name}"\n'
    tokens = {f"TOKEN_{name}": token for name, token in names.items()}
    with (
        start_server(config, **tokens) as server,
        client_of(server, names["ann"]) as ann,
        client_of(server, names["ben"]) as ben,
        client_of(server) as admin,
    ):
        batch = created(ann, line("a", "first"))
        for call in (
            lambda: ben.files.retrieve(batch.input_file_id),
            lambda: ben.files.content(batch.input_file_id),
            lambda: ben.files.delete(batch.input_file_id),
            lambda: ben.batches.retrieve(batch.id),
            lambda: ben.batches.cancel(batch.id),
        ):
            with pytest.raises(openai.NotFoundError):
                call()
        assert not ben.files.list().data
        assert not ben.batches.list().data
        stolen = poll(ben, ben.batches.create(input_file_id=batch.input_file_id, **GUIDE))
        assert stolen.status == "failed"
        assert batch.id in {found.id for found in admin.batches.list()}
        assert admin.files.content(batch.input_file_id).content == jsonl([line("a", "first")])
