"""A model loaded and asked as in the worker, and files as a source yields them."""

from __future__ import annotations

import hashlib
import io
import wave
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from PIL import Image

from orchestrator.worker.loading import load
from orchestrator.worker.model import ModelSettings

if TYPE_CHECKING:
    from pathlib import Path

Ask = Callable[..., list[dict[str, Any]]]


def serve(folder: Path, task: str, **settings: Any) -> Ask:
    batches = load(ModelSettings(task=task, model=str(folder), device="cpu", **settings))

    def ask(*inputs: object, **parameters: object) -> list[dict[str, Any]]:
        return [orjson.loads(entry) for entry in batches.answer(inputs, parameters)]

    return ask


def outputs(entries: list[dict[str, Any]]) -> list[Any]:
    assert [entry for entry in entries if "output" not in entry] == []
    return [entry["output"] for entry in entries]


def stored(path: Path, content: bytes, content_type: str) -> dict[str, str]:
    path.write_bytes(content)
    return {"$file": str(path), "sha256": hashlib.sha256(content).hexdigest(), "content_type": content_type}


def png(shade: int, size: tuple[int, int] = (20, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", size, (shade, 0, 255 - shade, 255)).save(buffer, "PNG")
    return buffer.getvalue()


def noise(seed: int, side: int = 32) -> bytes:
    """Return a PNG full of detail."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def wav(samples: np.ndarray[Any, Any], rate: int, channels: int = 1) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((channels, samples.dtype.itemsize, rate, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


def tone(rate: int, seconds: float = 0.5) -> np.ndarray[Any, Any]:
    return (np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate) * 20000).astype("<i2")
