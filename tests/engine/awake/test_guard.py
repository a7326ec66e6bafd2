"""What the guard takes for the end of the process that it watches."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil

from orchestrator.guard import watch
from tests.commands import until

if TYPE_CHECKING:
    import pytest


def test_the_guard_acts_if_the_process_is_stopped_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that Ctrl-Z has stopped asks nothing, and its endpoint would be awake until somebody remembers it."""
    looks: list[float] = []
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as process:

        def nothing_to_read(parent: int, _descriptors: list[int], _until: float) -> list[int] | None:
            looks.append(parent)
            if len(looks) == 3:
                process.send_signal(signal.SIGSTOP)
                until(lambda: psutil.Process(parent).status() == psutil.STATUS_STOPPED)
            return None if len(looks) == 9 else []

        monkeypatch.setattr(watch, "readable", nothing_to_read)
        monkeypatch.setattr(watch, "STOPPED_FOR", 0.0)
        assert watch._heard(process.pid) == b""
        process.kill()
    assert len(looks) == 3
