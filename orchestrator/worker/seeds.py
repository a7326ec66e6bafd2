"""A seed per item: an answer that is drawn by chance is the same one every time, whoever else is asked."""

from __future__ import annotations

import transformers

from orchestrator.worker.model import Parameters, Rejected

_MOST = 2**32 - 1  # NumPy's


def seed_of(task: str, parameters: Parameters) -> int | None:
    """The seed that items with these parameters are answered with, each alone. `Rejected` where it is none.

    text-to-audio has one always: its models draw noise whatever they are told.
    """
    seed = parameters.get("seed", 0 if task == "text-to-audio" else None)
    if seed is None:
        return None
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= _MOST:
        raise Rejected(f"seed must be a whole number from 0 to {_MOST}, not {seed!r}")
    return seed


def without_seed(parameters: Parameters) -> Parameters:
    """What the model itself is given."""
    return {name: value for name, value in parameters.items() if name != "seed"}


def sow(seed: int) -> None:
    """Set every source of chance that a model may draw from."""
    transformers.set_seed(seed)
