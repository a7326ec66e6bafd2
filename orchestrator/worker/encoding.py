"""A model's answers as JSON: arrays and tensors as numbers, images as base64 PNG, and never a silent null for NaN."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import numpy as np
import orjson
import torch
from PIL import Image

from orchestrator import exact_json
from orchestrator.worker import entries
from orchestrator.worker.model import AtLimit, one_line

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


def completed(output: object, *, input_cut: int | None = None) -> bytes:
    """Return the entry of an answered request, or of a request whose answer has no JSON form."""
    cut = isinstance(output, AtLimit)
    output = output.output if isinstance(output, AtLimit) else output
    try:
        text = exact_json.dumps(output, _plain, _OPTIONS)
    except Exception as error:
        reason = one_line(error.__cause__ or error)
        return entries.failed("bad_answer", f"the model's answer cannot be written as JSON: {reason}")
    if b"null" in text and not _finite(output):  # NaN is written as null, so only then we need to check
        return entries.failed("bad_answer", "the model's answer holds NaN or infinity")
    return entries.completed(text, input_cut=input_cut, cut=cut)


def _plain(value: Any) -> object:
    """Convert what orjson does not support, including arrays in a layout or of a type that it does not take."""
    if isinstance(value, torch.Tensor):
        value = (value.float() if value.dtype is torch.bfloat16 else value).detach().cpu()
        return np.ascontiguousarray(value.numpy()) if value.ndim else value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Image.Image):
        buffer = io.BytesIO()
        value.save(buffer, "PNG")
        return base64.b64encode(buffer.getbuffer()).decode()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _finite(value: object) -> bool:
    if isinstance(value, float | np.floating):
        return math.isfinite(value)
    if isinstance(value, np.ndarray):
        return value.dtype.kind != "f" or bool(np.isfinite(value).all())
    if isinstance(value, torch.Tensor):
        return bool(torch.isfinite(value).all())
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_finite, value))
    return True
