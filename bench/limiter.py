"""The limiter against fixed limits on simulated servers, in virtual time: ratios of completed work.

`python -m bench.limiter [SHAPE ...]` prints the table. Everything is relative to the best fixed limit for that very
server, which nobody knows beforehand. 8, 64 and 256 are what people set. "from 10 s": the ten seconds after the tenth
(of slow servers the 100 after the hundredth), relative to what the best fixed limit does once it runs evenly.
"""

from __future__ import annotations

import sys
from statistics import mean

from orchestrator.domain.limiter import Limiter
from tests.domain.simulated import SHAPES, Fixed, Run, best_fixed, simulate

SEEDS = range(5)
SETTINGS = (8, 64, 256)
SLOW = 300.0  # seconds: longer runs are those of slow servers


def main(names: list[str]) -> None:
    """Print one line a shape."""
    print(f"{'shape':15}{'best':>6}{'auto':>7}{'worst':>7}{'from 10 s':>11}{'last half':>11}{'refused':>9}", end="")
    print(*(f"{setting:>6}" for setting in SETTINGS), "  limits")
    for name in names or SHAPES:
        shape = SHAPES[name]
        limit, best = best_fixed(shape)
        runs: list[Run] = [simulate(shape, Limiter(), seed) for seed in SEEDS]
        ratios = [run.rate() / best.rate() for run in runs]
        start = 100.0 if shape.seconds > SLOW else 10.0
        half = shape.seconds / 2
        early = mean(run.rate(start, 2 * start) for run in runs) / best.rate(2 * start, half)
        late = mean(run.rate(half) for run in runs) / best.rate(half)
        refused = mean(run.refused / sum(run.completed) for run in runs)
        print(f"{name:15}{limit:6}{mean(ratios):7.3f}{min(ratios):7.3f}{early:11.3f}{late:11.3f}{refused:9.4f}", end="")
        for setting in SETTINGS:
            fixed = simulate(shape, Fixed(setting))
            print(f" {fixed.rate() / best.rate():6.2f}", end="")
        print("  ", *(limit for _, limit in runs[0].limits[:6]), "..", *(limit for _, limit in runs[0].limits[-3:]))


if __name__ == "__main__":
    main(sys.argv[1:])
