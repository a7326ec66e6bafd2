"""Devices: what this machine has to run models on, and a local endpoint spread over it."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from orchestrator.domain.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


@cache
def accelerators() -> tuple[str, ...]:
    """The CUDA devices that this process may use, as CUDA_VISIBLE_DEVICES names them. Imports no torch.

    `CUDA_VISIBLE_DEVICES` is heeded; without it, the driver is asked.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(name.strip() for name in visible.split(",") if name.strip() and name.strip() != "-1")
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    with suppress(OSError, subprocess.SubprocessError):
        query = [program, "--query-gpu=index", "--format=csv,noheader"]
        found = subprocess.run(query, stdout=subprocess.PIPE, timeout=20, check=True, text=True)
        return tuple(found.stdout.split())
    return ()


def cores() -> int:
    """The cores that this process may use: a container or taskset may allow fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Seat:
    """Where one of several workers sits. `visible`: the only accelerator that it is to see."""

    name: str
    device: str
    visible: str | None
    threads: int


def seats(devices: str | int | Sequence[str | int] | None, workers_per_device: int, threads: int | None) -> list[Seat]:
    """A seat for every worker. `devices`: "all" accelerators (without any, the CPU), numbers, names like "cuda:1".

    Each worker has its part of the cores, unless `threads` says otherwise: models fight over cores much worse than they
    share them.
    """
    if devices is None or devices == "all":
        wanted = [f"cuda:{number}" for number in range(len(accelerators()))] if devices else []
        wanted = wanted or ["cpu"]
    else:
        wanted = [str(one) for one in ([devices] if isinstance(devices, str | int) else devices)]
    each = threads or max(1, cores() // (len(wanted) * workers_per_device))
    return [
        Seat(f"{device}/{worker + 1}" if workers_per_device > 1 else device, *_pinned(device), each)
        for device in wanted
        for worker in range(workers_per_device)
    ]


def _pinned(device: str) -> tuple[str, str | None]:
    """The device as its worker calls it, and what alone the worker is to see: so it takes no memory of another one."""
    if device.isdecimal() and accelerators():
        device = f"cuda:{device}"
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return device, None
    known = accelerators()
    place = int(number or 0)
    if known and place >= len(known):
        raise UsageError(
            f"there is no device {device}: this process may use {len(known)}, cuda:0 to cuda:{len(known) - 1}"
        )
    return "cuda:0", known[place] if known else str(place)
