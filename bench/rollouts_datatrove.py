"""The rollouts of `bench/rollouts.py` with datatrove's `rollout_fn` and its request cache, for a Python that has it.

`python bench/rollouts_datatrove.py URL ROWS FOLDER`: the server at URL answers as OpenAI's completions do. Imports
nothing of this project. A folder from an earlier run is continued.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datatrove.data import Document
from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
from datatrove.pipeline.writers import JsonlWriter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

STEPS = 3
IN_FLIGHT = 64
PROMPT = "Summarise the following text in one short sentence. " * 4


async def rollout(document: Document, generate: Callable[[dict[str, Any]], Awaitable[Any]]) -> str:
    """Make three asks, each of which contains something of the answer before."""
    text: str = document.text
    for step in range(STEPS):
        answer = await generate({"prompt": text})
        text = f"{document.text} {step} {answer.text[:10]}"
    return text


def main(url: str, rows: int, folder: Path) -> None:
    """Run all rollouts, or those that an earlier run left."""
    config = InferenceConfig(
        server_type="endpoint",
        model_name_or_path="bench",
        endpoint_url=url.rstrip("/"),
        use_chat=False,
        max_concurrent_generations=IN_FLIGHT,
    )
    writer = JsonlWriter(str(folder / "out"), output_filename="${rank}_${chunk_index}.jsonl", compression=None)
    runner = InferenceRunner(rollout, config, writer, checkpoints_local_dir=str(folder / "checkpoints"))
    runner.run(Document(text=f"{PROMPT}{number}", id=str(number)) for number in range(rows))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
