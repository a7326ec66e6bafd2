"""Imported by a worker: when the model's forward pass begins and ends goes into the file that BENCH_CLOCK names.

Pairs of doubles, on the monotonic clock, which is the same in all processes of a machine.
"""

from __future__ import annotations

import os
import struct
import time
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

PAIR = struct.Struct("dd")


def spans(path: Path) -> list[tuple[float, float]]:
    """What is in such a file."""
    return [(begun, ended) for begun, ended in PAIR.iter_unpack(path.read_bytes())]


def _watch(path: str) -> None:
    import torch
    from transformers.models.bert.modeling_bert import BertModel

    inner, file = BertModel.forward, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    @wraps(inner)
    def forward(*args: Any, **kwargs: Any) -> Any:
        begun = time.monotonic()
        made = inner(*args, **kwargs)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        os.write(file, PAIR.pack(begun, time.monotonic()))
        return made

    BertModel.forward = forward  # watched, not changed


if "BENCH_CLOCK" in os.environ:
    _watch(os.environ["BENCH_CLOCK"])
