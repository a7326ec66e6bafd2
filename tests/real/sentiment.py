"""A classifier of sentiment, fine-tuned in the test on texts that people have rated."""

from __future__ import annotations

import importlib.util
import io
import random
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, BertForSequenceClassification, set_seed

from tests.real.packages import folder_of

Row = tuple[str, int]
LABELS = ("NEGATIVE", "POSITIVE")
_CLEAR = 0.5  # a mean rating from -4 to 4 that is nearer to 0 says nothing
_BATCH, _TOKENS, _RATE = 32, 48, 1e-3
_SORTED = 8  # batches at a time are cut from texts in order of length


def rated_texts(folder: Path) -> list[Row]:
    """19,000 tweets, reviews and sentences of editorials, in no order. Skips where pip cannot get them."""
    prepare = _prepare()
    try:
        archive = prepare.downloaded(folder)
    except subprocess.CalledProcessError:
        pytest.skip("the corpus of vaderSentiment 2.5 cannot be downloaded")
    with tarfile.open(archive) as outer, tarfile.open(fileobj=io.BytesIO(prepare.read(outer, prepare.CORPUS))) as inner:
        names = sorted(name for name in inner.getnames() if name.endswith("_GroundTruth.txt"))
        lines = [line for name in names for line in prepare.read(inner, name).decode("latin-1").splitlines()]
    rows = [(text, float(rating)) for _, rating, text in (line.split("\t", 2) for line in lines)]
    clear = [(text, int(rating > 0)) for text, rating in rows if abs(rating) > _CLEAR]
    random.Random(0).shuffle(clear)
    return clear


def write_sentiment(folder: Path, rows: list[Row]) -> Path:
    """Fine-tune a BERT of 4 million weights for one epoch; some ten seconds of one core for 5,000 texts."""
    source = folder_of("cognition") / "model"
    set_seed(0)
    names = dict(enumerate(LABELS))
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = BertForSequenceClassification.from_pretrained(
        source, num_labels=2, id2label=names, label2id={name: number for number, name in names.items()}
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=0.01)
    steps = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, len(rows) // _BATCH)
    model.train()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for start in range(0, len(rows), _BATCH * _SORTED):
            alike = sorted(rows[start : start + _BATCH * _SORTED], key=lambda row: len(row[0]))
            for first in range(0, len(alike), _BATCH):
                texts, labels = zip(*alike[first : first + _BATCH], strict=True)
                inputs = tokenizer([*texts], padding=True, truncation=True, max_length=_TOKENS, return_tensors="pt")
                model(**inputs, labels=torch.tensor(labels)).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                steps.step()
    finally:
        torch.set_num_threads(threads)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _prepare() -> Any:
    """The script of the demo that gets the archive."""
    path = Path(__file__).parents[2] / "jobs" / "demo" / "prepare.py"
    spec = importlib.util.spec_from_file_location("demo_prepare", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
