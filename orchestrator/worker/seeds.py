"""A seed per item: a sampled answer is the same every time, whatever else is computed."""

from __future__ import annotations

import transformers

from orchestrator.worker.model import Parameters, Rejected

_MOST = 2**32 - 1  # NumPy's


def seed_of(task: str, parameters: Parameters) -> int | None:
    """Return the seed for items with these parameters, each computed alone. Raises `Rejected` if it is invalid.

    text-to-audio always has a seed, because its models always sample noise.
    """
    seed = parameters.get("seed", 0 if task == "text-to-audio" else None)
    if seed is None:
        return None
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= _MOST:
        raise Rejected(f"seed must be a whole number from 0 to {_MOST}, not {seed!r}")
    return seed


def without_seed(parameters: Parameters) -> Parameters:
    """Return the parameters for the model itself."""
    return {name: value for name, value in parameters.items() if name != "seed"}


def sow(seed: int) -> None:
    """Seed every random number generator that a model may use."""
    transformers.set_seed(seed)
