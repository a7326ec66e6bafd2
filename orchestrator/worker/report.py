"""The worker's status file: small, replaced every second, and read by `status` and the progress display."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

import orjson
import psutil

from orchestrator.domain.worker import Vitals

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.worker.meter import Meter
    from orchestrator.worker.stepwise import Stepwise

_EVERY = 1.0  # seconds


async def report_for_ever(path: Path, endpoint: str, served: Stepwise, meter: Meter) -> None:
    """Keep the file up to date. If it cannot be written, try again later: the work does not depend on it."""
    own, parent = psutil.Process(), psutil.Process(os.getppid())
    parent_started = parent.create_time()
    while True:
        busy, rate = meter.read()
        device_memory, device_total = _device_memory()
        vitals = Vitals(
            endpoint=endpoint,
            pid=own.pid,
            parent=parent.pid,
            parent_started=parent_started,
            at=time.time(),
            device=str(served.info.get("device", "cpu")),
            memory=own.memory_info().rss,
            device_memory=device_memory,
            device_total=device_total,
            busy=round(busy, 3),
            items_per_second=round(rate, 2),
            budget=served.budget,
            dtype=None if (dtype := served.info.get("dtype")) is None else str(dtype),
        )
        with suppress(OSError):
            _write(path, orjson.dumps(asdict(vitals)))
        await asyncio.sleep(_EVERY)


def _write(path: Path, content: bytes) -> None:
    aside = path.with_suffix(".part")
    aside.touch(mode=0o600)
    aside.write_bytes(content)
    aside.replace(path)


def _device_memory() -> tuple[int | None, int | None]:
    """Return the accelerator memory used by this process, and its total. Imports nothing, not even torch."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None, None
    return torch.cuda.memory_reserved(), torch.cuda.mem_get_info()[1]
