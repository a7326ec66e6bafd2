"""Opens {"$file": path, "sha256": ..., "content_type": ...} for a pipeline: an image, samples, bytes or a path."""

from __future__ import annotations

import hashlib
import io
import wave
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image, UnidentifiedImageError

from orchestrator.worker.model import Rejected

if TYPE_CHECKING:
    from collections.abc import Mapping

Samples: TypeAlias = "np.ndarray[Any, np.dtype[np.float32]]"


def open_files(value: object, rate: int | None) -> object:
    """Return the same value with every file in it opened; audio is resampled to `rate` samples per second.

    Raises `Rejected` if a file cannot be read or has changed since it was ingested.
    """
    if isinstance(value, dict):
        if "$file" in value:
            return _open(value, rate)
        return {key: open_files(part, rate) for key, part in value.items()}
    if isinstance(value, list):
        return [open_files(part, rate) for part in value]
    return value


def read_file(file: Mapping[str, Any]) -> bytes:
    """Return the file's bytes. Raises `Rejected` if it cannot be read or has changed since it was ingested."""
    path = Path(str(file["$file"]))
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Rejected(f"{path.name}: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != file.get("sha256"):
        raise Rejected(f"{path.name}: file changed since it was ingested")
    return content


def read_image(content: bytes, name: str) -> Image.Image:
    """Return the image in RGB. Raises `Rejected` if it is not an image."""
    try:
        return Image.open(io.BytesIO(content)).convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise Rejected(f"{name}: not an image that can be read") from error


def _open(file: Mapping[str, Any], rate: int | None) -> object:
    path, content = Path(str(file["$file"])), read_file(file)
    kind = str(file.get("content_type", "")).partition("/")[0]
    if kind == "image":
        return read_image(content, path.name)
    if kind == "audio":
        return _audio(content, rate)
    return str(path)


def _audio(content: bytes, rate: int | None) -> Samples | bytes:
    """Return the mono samples of a PCM WAV; for other formats the bytes, which the pipeline decodes with ffmpeg."""
    try:
        with wave.open(io.BytesIO(content)) as audio:
            channels, width, own_rate, count = audio.getparams()[:4]
            samples = _samples(audio.readframes(count), width).reshape(-1, channels).mean(axis=1, dtype=np.float32)
    except (wave.Error, EOFError, ValueError):
        return content
    return _resample(samples, own_rate, rate or own_rate)


def _samples(frames: bytes, width: int) -> Samples:
    """Convert PCM of 1 to 4 bytes per sample to floats from -1 to 1."""
    if width == 1:  # the only unsigned one
        return (np.frombuffer(frames, np.uint8).astype(np.float32) - np.float32(128)) / np.float32(128)
    wide = np.zeros((len(frames) // width, 4), np.uint8)
    wide[:, 4 - width :] = np.frombuffer(frames, np.uint8).reshape(-1, width)  # little endian: the low bytes stay zero
    return wide.view("<i4")[:, 0].astype(np.float32) / np.float32(2**31)


def _resample(samples: Samples, own: int, wanted: int) -> Samples:
    """Resample by cutting or padding the spectrum: exact for frequencies that both rates can hold, without aliasing."""
    if own == wanted or not len(samples):
        return samples
    count = round(len(samples) * wanted / own)
    spectrum = np.fft.rfft(samples)[: count // 2 + 1]
    return (np.fft.irfft(spectrum, count) * (count / len(samples))).astype(np.float32)
