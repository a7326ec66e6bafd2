from __future__ import annotations

import random
from hashlib import blake2b
from typing import TYPE_CHECKING

import pytest

from orchestrator.engine.run import repeats
from orchestrator.engine.run.repeats import KEY, Repeats

if TYPE_CHECKING:
    from collections.abc import Sequence


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
