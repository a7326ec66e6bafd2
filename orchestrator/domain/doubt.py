"""Doubt: whether an endpoint is down or only some rows fail, and when an answered request is worth asking again."""

from __future__ import annotations

from math import isfinite

ENOUGH, MOST = 2, 16  # failures in a row that cast doubt on an endpoint: at first, and after needless probes
RECENT, ANSWERS = 10.0, 5  # seconds; or the time of so many answers, if that is longer


def recent(usual: float) -> float:
    """Return for how many seconds something counts as recent at an endpoint whose answers take `usual` seconds.

    `usual` is infinite if that is not known.
    """
    return max(RECENT, ANSWERS * usual) if isfinite(usual) else RECENT


def needs_probe(failures: int, seconds: float, needless: int, usual: float) -> bool:
    """Whether a request that was answered before shows more than another row would, after these failures in a row.

    `seconds`: since the first of them. `needless`: how many probes in a row were answered, so that rows were at fault.
    `usual`: as in `recent`.
    """
    return failures >= min(ENOUGH << needless, MOST) or (failures >= ENOUGH and seconds >= recent(usual))


def rows_are_at_fault(since_answer: float, usual: float, *, failed_before: bool) -> bool:
    """Whether failures count without a probe: all these rows have `failed_before`, and something was answered just now.

    `since_answer`: seconds since the last request that was answered was sent. `usual`: as in `recent`.
    """
    return failed_before and since_answer < recent(usual)
