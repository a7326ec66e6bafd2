"""Devices: the accelerators and cores of this machine, and how a local endpoint's workers share them."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.domain.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


@cache
def accelerators() -> tuple[str, ...]:
    """Return the CUDA devices that this process may use, as CUDA_VISIBLE_DEVICES names them. Does not import torch.

    If `CUDA_VISIBLE_DEVICES` is not set, this runs nvidia-smi.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(name.strip() for name in visible.split(",") if name.strip() and name.strip() != "-1")
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    with suppress(OSError, subprocess.SubprocessError):
        query = [program, "--query-gpu=index", "--format=csv,noheader"]
        listing = subprocess.run(query, stdout=subprocess.PIPE, timeout=20, check=True, text=True)
        return tuple(listing.stdout.split())
    return ()


def cores() -> int:
    """Return the number of cores that this process may use: a container or taskset may allow fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def cpu_flags() -> frozenset[str]:
    """Return the features of this machine's CPU as Linux names them; none on another system."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "flags":
                return frozenset(value.split())
    return frozenset()


def only_cpu(devices: str | int | Sequence[str | int] | None) -> bool:
    """Whether a model on these devices, as `seats` takes them, computes on the CPU alone."""
    named = [devices] if devices is None or isinstance(devices, str | int) else devices
    return all(
        not accelerators() if device in {None, "all"} or str(device).isdecimal() else _is_cpu(str(device))
        for device in named
    )


def _is_cpu(device: str) -> bool:
    """Numbers below 0 are the CPU, as in transformers."""
    return device.partition(":")[0] == "cpu" or device.startswith("-")


@dataclass(frozen=True, slots=True)
class Seat:
    """The device and the cores of one of several workers. `visible`: the only accelerator that the worker can see."""

    name: str
    device: str | int | None
    visible: str | None
    threads: int


def seats(devices: str | int | Sequence[str | int] | None, workers_per_device: int, threads: int | None) -> list[Seat]:
    """Return a seat for every worker.

    `devices`: "all" accelerators (the CPU if there are none), numbers, or names like "cuda:1". Unless `threads` is set,
    the cores are divided among the workers, because models that compete for cores are much slower.
    """
    if devices is None or devices == "all":
        wanted = [f"cuda:{number}" for number in range(len(accelerators()))] if devices else []
        wanted = wanted or ["cpu"]
    else:
        wanted = [str(device) for device in ([devices] if isinstance(devices, str | int) else devices)]
    each = threads or max(1, cores() // (len(wanted) * workers_per_device))
    return [
        Seat(f"{device}/{worker + 1}" if workers_per_device > 1 else device, *_pinned(device), each)
        for device in wanted
        for worker in range(workers_per_device)
    ]


def _pinned(device: str) -> tuple[str, str | None]:
    """Return the device's name inside its worker, and the one accelerator visible there.

    A worker that sees no other accelerator takes no memory on it.
    """
    if device.isdecimal() and accelerators():
        device = f"cuda:{device}"
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return device, None
    available = accelerators()
    index = int(number or 0)
    if available and index >= len(available):
        raise UsageError(
            f"there is no device {device}: this process may use {len(available)}, cuda:0 to cuda:{len(available) - 1}"
        )
    return "cuda:0", available[index] if available else str(index)
