"""The folders of models that servers load: SmolLM2, the same with tokens of thoughts, a tiny one, and Whisper."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from tests.real.smollm2 import write_smollm2
from tests.real.whisper import write_whisper
from tests.tiny_models import generator
from tests.wires.servers.programs import HOME

if TYPE_CHECKING:
    from pathlib import Path

_SPARE = {"<reponame>": "<think>", "<file_sep>": "</think>"}  # tokens of SmolLM2 that no chat has


def write_models() -> None:
    """Write the folders that are not there."""
    folder = HOME / "models"
    if not (folder / "smollm2").exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_smollm2(folder / "smollm2")
    if not (folder / "thinking").exists():
        _write_thinking(folder / "smollm2", folder / "thinking")
    if not (folder / "tiny").exists():
        generator(folder / "tiny")
    if not (folder / "whisper").exists():
        write_whisper(folder / "whisper")


def _write_thinking(model: Path, folder: Path) -> None:
    shutil.copytree(model, folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (folder / name).read_text(encoding="utf-8")
        for spare, token in _SPARE.items():
            text = text.replace(spare, token)
        (folder / name).write_text(text, encoding="utf-8")
