"""The layout of sentence-transformers: modules.json says how a model makes one vector from a text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from transformers.utils.hub import cached_file

from orchestrator.worker.model import LoadFailed, ModelSettings

MODES = ("cls", "max", "mean", "lasttoken")  # the pooling modes that this worker supports
_FLAGS = {  # before version 6, each pooling mode had a flag of its own
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True, slots=True)
class Pooling:
    """How many vectors become one."""

    modes: tuple[str, ...]  # from MODES; several are concatenated
    normalize: bool
    max_tokens: int | None
    lower_case: bool
    prompt: str  # precedes every text


def read_sentence_layout(settings: ModelSettings) -> tuple[str, Pooling | None]:
    """Return the folder of the encoder and how to pool, or None for a model that does not say.

    Raises `LoadFailed` for pooling that this worker does not support: nearly right vectors are wrong.
    """
    modules = {entry["type"].rpartition(".")[2]: entry["path"] for entry in _read(settings, "modules.json") or ()}
    if "Pooling" not in modules:
        return "", None
    folder = modules.get("Transformer", "")
    pooling = _read(settings, f"{modules['Pooling']}/config.json") or {}
    modes = pooling.get("pooling_mode") or [mode for flag, mode in _FLAGS.items() if pooling.get(flag)] or "mean"
    modes = (modes,) if isinstance(modes, str) else tuple(modes)
    unknown = (modules.keys() - {"Transformer", "Pooling", "Normalize"}) | (set(modes) - set(MODES))
    if unknown:
        raise LoadFailed(f"the model makes its vectors with {', '.join(sorted(unknown))}, which this worker cannot do")
    limits = _read(settings, "/".join(filter(None, (folder, "sentence_bert_config.json")))) or {}
    prompts = _read(settings, "config_sentence_transformers.json") or {}
    return folder, Pooling(
        modes=modes,
        normalize="Normalize" in modules,
        max_tokens=limits.get("max_seq_length"),
        lower_case=bool(limits.get("do_lower_case")),
        prompt=(prompts.get("prompts") or {}).get(prompts.get("default_prompt_name"), ""),
    )


def _read(settings: ModelSettings, name: str) -> Any:
    """Return a JSON file of the model, from its folder or the hub, or None if the model surely has no such file."""
    found = cached_file(settings.model, name, revision=settings.revision, _raise_exceptions_for_missing_entries=False)
    return orjson.loads(Path(found).read_bytes()) if found else None
