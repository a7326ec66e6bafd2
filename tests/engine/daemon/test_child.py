"""Logs of runs executed by a daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.run_log import LARGE, keep_small

if TYPE_CHECKING:
    from pathlib import Path


def test_a_large_log_keeps_its_end_and_says_how_much_was_cut(tmp_path: Path) -> None:
    log = tmp_path / "1.log"
    with log.open("ab") as writes:
        writes.write(b"x" * LARGE)
        writes.flush()
        keep_small(log)
        assert log.stat().st_size == LARGE
        writes.write(b"y" * 1000)
        writes.flush()
        keep_small(log)
        writes.write(b"and on\n")
    said = log.read_bytes()
    assert said.startswith(b"[9001000 bytes of output are left out here]\nxxx")
    assert said.endswith(b"yyyand on\n")
    assert len(said) < 1_001_000
