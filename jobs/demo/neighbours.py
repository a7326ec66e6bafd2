"""Show the sentences nearest in meaning to three others, or to those whose ids are given."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

VECTORS = Path("out/embeddings.jsonl")
CHOSEN = ["242_3", "62_4", "216_12"]
SHOWN = 3


def main(chosen: list[str]) -> None:
    """Compare each chosen sentence with every other: the vectors have length 1, so a product is a cosine."""
    with VECTORS.open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    ids = [record["id"] for record in records]
    texts = [record["text"] for record in records]
    vectors = np.array([record["output"] for record in records], np.float32)
    for place in map(ids.index, chosen):
        likeness = vectors @ vectors[place]
        print(f"\n{texts[place]}")
        likeness[place] = -1  # itself
        for other in np.argsort(-likeness)[:SHOWN]:
            print(f"  {likeness[other]:.2f}  {texts[other]}")


if __name__ == "__main__":
    main(sys.argv[1:] or CHOSEN)
