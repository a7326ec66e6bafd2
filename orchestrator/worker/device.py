"""The torch device for a name. Run as a program with such a name, it prints why the device cannot be used."""

from __future__ import annotations

import re
import sys

import torch

from orchestrator.worker.model import one_line


def accelerator() -> torch.device | None:
    """Return this machine's first accelerator, if it has one."""
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None


def device_of(name: str | None, first: torch.device | None) -> torch.device:
    """Return the named device; without a name, the `first` accelerator, or the CPU if there is none.

    A number means what it means in transformers: that accelerator, or the CPU if it is below 0 or there is none.
    """
    if name is None:
        return first or torch.device("cpu")
    if re.fullmatch(r"-?\d+", name) is None:
        return torch.device(name)
    number = int(name)
    return torch.device("cpu") if first is None or number < 0 else torch.device(first.type, number)


if __name__ == "__main__":
    try:
        torch.empty(1, device=device_of(sys.argv[1], accelerator()))
    except Exception as error:
        sys.exit(one_line(error))
