"""Files: contents are shared by equal files, and go with the last thing that refers to them."""

from __future__ import annotations

import hashlib
import stat
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest
from anyio import to_thread

from orchestrator.domain.batch import BATCH_INPUT, BatchStatus, NewBatch, UploadState
from orchestrator.domain.errors import BatchOver, LedgerError, UsageError
from orchestrator.engine.batches.creation import cancel_batch, create_batch
from orchestrator.engine.batches.files import put_together, receiving
from orchestrator.store import Store
from orchestrator.store.copies import back_up
from tests.past import clock_at

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orchestrator.domain.batch import StoredFile, Upload

ROUTE = "/v1/chat/completions"


async def kept(
    store: Store, content: bytes = b"{}\n", *, owner: str = "ann", name: str = "a.jsonl", seconds: float | None = None
) -> StoredFile:
    async with receiving(store) as incoming:
        for start in range(0, len(content), 7):
            await incoming.write(content[start : start + 7])
        return await incoming.keep(owner=owner, filename=name, purpose=BATCH_INPUT, expires_after=seconds)


def contents(store: Store) -> list[Path]:
    folder = store.database.path.with_name("ledger.db.files")
    return sorted(folder.iterdir()) if folder.is_dir() else []


async def begun(store: Store, size: int = 6) -> Upload:
    return await store.files.begin_upload(
        owner="ann",
        bytes_=size,
        filename="a.jsonl",
        purpose=BATCH_INPUT,
        mime_type="application/jsonl",
        expires_after=None,
    )


async def parts(store: Store, upload: Upload, *pieces: bytes) -> Sequence[str]:
    ids = []
    for piece in pieces:
        async with receiving(store) as incoming:
            await incoming.write(piece)
            ids.append((await incoming.keep_as_part(upload)).id)
    return ids


async def test_a_file_is_stored_under_its_hash_for_its_user_alone(store: Store) -> None:
    content = b"x" * 1_000_000
    file = await kept(store, content)
    assert (file.sha256, file.bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    path = store.files.blobs.path(file.sha256)
    assert await to_thread.run_sync(path.read_bytes) == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert file.expires_at == file.created_at + 30 * 86400


async def test_a_backup_has_the_contents_that_are_in_use_and_a_newer_one_no_others(
    store: Store, tmp_path: Path
) -> None:
    first, second, ledger = await kept(store, b"{}\n"), await kept(store, b"[]\n"), store.database.path
    back_up_now = partial(back_up, ledger, tmp_path / "copy.db", force=True)
    assert (await to_thread.run_sync(back_up_now)).files == 2
    copied = {path.name: path.read_bytes() for path in (tmp_path / "copy.db.files").iterdir()}
    assert copied == {first.sha256: b"{}\n", second.sha256: b"[]\n"}
    await store.files.delete(first.id, "ann")
    assert (await to_thread.run_sync(back_up_now)).files == 1
    assert [path.name for path in (tmp_path / "copy.db.files").iterdir()] == [second.sha256]


async def test_only_our_own_unfinished_files_are_abandoned(store: Store) -> None:
    await kept(store)
    theirs, ours = (contents(store)[0].with_name(name) for name in ("notes.tmp", f"1-{'a' * 16}.tmp"))
    for file in (theirs, ours):
        await to_thread.run_sync(file.touch)
    await to_thread.run_sync(store.files.blobs.drop_abandoned, time.time() + 60)
    assert theirs in contents(store)
    assert ours not in contents(store)


async def test_nothing_is_written_into_a_folder_that_another_user_made(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kept(store)
    monkeypatch.setattr("orchestrator.store.blobs.made_by_others", lambda folder, _: folder.is_dir())
    with pytest.raises(LedgerError, match="another user of this machine made the folder"):
        await kept(store, b'{"b": 1}\n')
    assert len(contents(store)) == 1


async def test_a_file_that_is_not_kept_leaves_nothing(store: Store) -> None:
    async with receiving(store) as incoming:
        await incoming.write(b"x" * 1_000_000)
        assert len(contents(store)) == 1
    assert contents(store) == []


async def test_the_same_upload_within_a_minute_is_one_file_and_later_another_one(store: Store) -> None:
    with clock_at(time.time()) as clock:
        first = await kept(store)
        assert await kept(store) == first
        assert len({first.id, (await kept(store, owner="bob")).id, (await kept(store, name="b.jsonl")).id}) == 3
        clock.now += 61
        assert (await kept(store)).id != first.id
    assert len(contents(store)) == 1


async def test_a_file_of_another_owner_cannot_be_found_listed_or_deleted(store: Store) -> None:
    file, files = await kept(store), store.files
    assert await files.find(file.id, "bob") is None
    assert await files.listed("bob", limit=10) == ([], False)
    assert not await files.delete(file.id, "bob")
    assert await files.find(file.id, "ann") == await files.find(file.id, None) == file


async def test_files_are_listed_page_by_page_in_both_directions(store: Store) -> None:
    made, files = [await kept(store, name=f"{number}.jsonl") for number in range(5)], store.files
    assert await files.listed("ann", limit=2) == (made[:2:-1], True)
    assert await files.listed("ann", limit=3, after=made[3].id) == (made[2::-1], False)
    assert await files.listed("ann", limit=3, after=made[0].id, newest_first=False) == (made[1:4], True)
    assert await files.listed("ann", purpose="fine-tune", limit=10) == ([], False)


async def test_a_content_goes_with_the_last_file_that_has_it(store: Store) -> None:
    one, other, files = await kept(store), await kept(store, owner="bob"), store.files
    assert await files.delete(one.id, "ann")
    assert len(contents(store)) == 1
    assert await files.delete(other.id, None)
    assert contents(store) == []
    assert not await files.delete(other.id, None)


async def test_the_content_of_a_deleted_file_stays_while_an_unfinished_batch_reads_it(store: Store) -> None:
    file = await kept(store)
    batch = (await create_batch(NewBatch("ann", ROUTE, file.id), store)).batch
    assert await store.files.delete(file.id, "ann")
    assert len(contents(store)) == 1
    await store.batches.end(batch, BatchStatus.CANCELLED)
    await store.files.drop_unused(await to_thread.run_sync(store.files.blobs.contents))
    assert contents(store) == []


async def test_expired_files_are_gone_at_once_and_their_contents_with_the_next_look(store: Store) -> None:
    with clock_at(time.time()) as clock:
        file = await kept(store, seconds=3600)
        clock.now += 3601
        assert await store.files.find(file.id, None) is None
        await store.files.expire(clock.now)
    assert contents(store) == []


async def test_a_file_in_parts_is_put_together_in_the_order_that_is_asked_for(store: Store) -> None:
    upload, files = await begun(store), store.files
    second, first = await parts(store, upload, b"def", b"abc")
    with pytest.raises(UsageError, match="has no part 'part_x'"):
        await put_together(upload, [first, "part_x"], None, store)
    with pytest.raises(UsageError, match="3 bytes together, not 6"):
        await put_together(upload, [first], None, store)
    with pytest.raises(UsageError, match="do not have the MD5"):
        await put_together(upload, [first, second], "0" * 32, store)
    md5 = hashlib.md5(b"abcdef", usedforsecurity=False).hexdigest()
    file = await put_together(upload, [first, second], md5, store)
    assert await to_thread.run_sync(files.blobs.path(file.sha256).read_bytes) == b"abcdef"
    assert [path.name for path in contents(store)] == [file.sha256]
    found = await files.find_upload(upload.id, "ann")
    assert found is not None
    assert (found.state, found.file_id) == (UploadState.COMPLETED, file.id)
    with pytest.raises(UsageError, match="takes no more parts"):
        await parts(store, upload, b"ghi")


async def test_a_cancelled_or_late_upload_leaves_nothing(store: Store) -> None:
    upload = await begun(store)
    await parts(store, upload, b"abc")
    assert (await store.files.cancel_upload(upload)).state is UploadState.CANCELLED
    assert contents(store) == []
    late = await begun(store)
    await parts(store, late, b"abc")
    await store.files.expire(time.time() + 3601)
    assert contents(store) == []
    found = await store.files.find_upload(late.id, "ann")
    assert found is not None
    assert found.state is UploadState.EXPIRED


async def test_two_equal_batches_within_a_minute_are_one_unless_the_first_was_cancelled(store: Store) -> None:
    file, other = await kept(store), await kept(store, b"{ }\n")
    new = NewBatch("ann", ROUTE, file.id, metadata={"b": "1", "a": "2"})
    with clock_at(time.time()) as clock:
        first = (await create_batch(new, store)).batch
        again = NewBatch("ann", ROUTE, file.id, metadata={"a": "2", "b": "1"})
        assert (await create_batch(again, store)).batch == first
        ids = {first.id}
        for different in (
            NewBatch("ann", ROUTE, file.id),
            NewBatch("ann", ROUTE, other.id, metadata=new.metadata),
            NewBatch("ann", "/v1/embeddings", file.id, metadata=new.metadata),
            NewBatch("ann", ROUTE, file.id, "48h", metadata=new.metadata),
        ):
            ids.add((await create_batch(different, store)).batch.id)
        await cancel_batch(first.id, "ann", store)
        second = (await create_batch(new, store)).batch
        clock.now += 61
        ids |= {second.id, (await create_batch(new, store)).batch.id}
    assert len(ids) == 7


async def test_a_batch_over_a_file_that_is_not_the_owners_is_created_without_a_content(store: Store) -> None:
    file = await kept(store)
    assert (await create_batch(NewBatch("bob", ROUTE, file.id), store)).batch.input_sha256 is None
    assert (
        await create_batch(NewBatch("bob", ROUTE, file.id), store, reads_all=True)
    ).batch.input_sha256 == file.sha256


async def test_a_batch_that_has_ended_cannot_be_cancelled_and_cancelling_twice_changes_nothing(store: Store) -> None:
    batch = (await create_batch(NewBatch("ann", ROUTE, "file-x"), store)).batch
    assert await cancel_batch(batch.id, "bob", store) is None
    cancelled = await cancel_batch(batch.id, "ann", store)
    assert cancelled is not None
    assert cancelled.status is BatchStatus.CANCELLING
    assert await cancel_batch(batch.id, "ann", store) == cancelled
    await store.batches.end(batch, BatchStatus.CANCELLED)
    again = await cancel_batch(batch.id, "ann", store)
    assert again is not None
    assert again.status is BatchStatus.CANCELLED
    other = (await create_batch(NewBatch("ann", ROUTE, "file-x"), store)).batch
    await store.batches.end(other, BatchStatus.FAILED)
    with pytest.raises(BatchOver, match="Cannot cancel a batch with status 'failed'"):
        await cancel_batch(other.id, "ann", store)


@pytest.mark.parametrize(
    ("window", "metadata"),
    [
        *((window, {}) for window in ("0h", "24", "1w", "")),
        *(("24h", {name: value}) for name, value in (("priority", "high"), ("budget", "-1"), ("budget", "nan"))),
        *(("24h", {name: value}) for name, value in (("deadline", "soon"), ("job", "a.b"))),
    ],
)
async def test_a_batch_with_a_window_or_orders_that_cannot_be_meant_is_refused(
    store: Store, window: str, metadata: dict[str, str]
) -> None:
    with pytest.raises(UsageError):
        await create_batch(NewBatch("ann", ROUTE, "file-x", window, metadata), store)


async def test_a_ledger_that_is_opened_through_a_link_has_the_same_contents(store: Store, tmp_path: Path) -> None:
    file = await kept(store)
    link = tmp_path / "elsewhere" / "link.db"
    await to_thread.run_sync(link.parent.mkdir)
    await to_thread.run_sync(link.symlink_to, store.database.path)
    async with Store.open(str(link)) as linked:
        assert linked.files.blobs.path(file.sha256) == store.files.blobs.path(file.sha256)
