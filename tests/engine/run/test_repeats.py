from __future__ import annotations

import random
from contextlib import closing
from hashlib import blake2b
from io import FileIO
from typing import TYPE_CHECKING

import pytest

from orchestrator.domain.errors import UsageError
from orchestrator.engine.run import repeats
from orchestrator.engine.run.repeats import KEY, Repeats

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from typing_extensions import Buffer


def key(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=KEY).digest()


def found(texts: Sequence[str | None], page: int) -> dict[int, int]:
    some = Repeats()
    for at in range(0, len(texts), page):
        some.add([None if text is None else key(text) for text in texts[at : at + page]], at)
    pairs = [pair for part in some.found() for pair in part]
    some.close()
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def expected(texts: Sequence[str | None]) -> dict[int, int]:
    firsts: dict[str, int] = {}
    return {
        position: first
        for position, text in enumerate(texts)
        if text is not None and (first := firsts.setdefault(text, position)) != position
    }


@pytest.mark.parametrize("buffered", [1, 1000, 4 << 20])
def test_every_repeated_key_is_found_with_its_first_position_in_memory_or_on_disk(
    monkeypatch: pytest.MonkeyPatch, buffered: int
) -> None:
    monkeypatch.setattr(repeats, "_BUFFERED", buffered)
    dice = random.Random(3)
    texts = [dice.choice([None, f"rare {dice.randrange(900)}", "frequent"]) for _ in range(1000)]
    assert found(texts, 37) == expected(texts)
    assert found([f"{number}" for number in range(500)], 500) == {}
    assert found([], 1) == {}


def test_millions_of_equal_keys_are_found_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "_FOUND", 10)
    monkeypatch.setattr(repeats, "_BUFFERED", 1)
    with closing(Repeats()) as some:
        for at in range(0, 1000, 5):
            some.add([key("same")] * 5, at)
        sizes = [len(page) for page in some.found()]
    assert (sum(sizes), max(sizes) < 15) == (999, True)


class AlmostFull(FileIO):
    """A file on a disk that takes only a part of what is written."""

    def write(self, data: Buffer) -> int:
        return super().write(memoryview(data)[:1000])


def test_what_the_disk_takes_in_parts_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(repeats, "_BUFFERED", 1000)
    monkeypatch.setattr(repeats, "TemporaryFile", lambda **_: AlmostFull(tmp_path / "spilled", "w+"))
    texts = [f"{number % 700}" for number in range(1400)]
    assert found(texts, 100) == expected(texts)


def test_a_full_disk_is_said_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "_BUFFERED", 1000)
    monkeypatch.setattr(repeats, "TemporaryFile", lambda **_: FileIO("/dev/full", "r+"))
    with closing(Repeats()) as some, pytest.raises(UsageError, match=r"\(No space left on device\): set TMPDIR to "):
        some.add([key("same")] * 1000, 0)
