"""Doubt: whether an endpoint is down or only some rows fail, and when an answered request is worth asking again."""

from __future__ import annotations

ENOUGH, MOST = 2, 16  # failures in a row that cast doubt on an endpoint: at first, and after needless probes
RECENT = 10.0  # seconds


def needs_probe(failures: int, seconds: float, needless: int) -> bool:
    """Whether a request that was answered before shows more than another row would, after these failures in a row.

    `seconds`: since the first of them. `needless`: how many probes in a row were answered, so that rows were at fault.
    """
    return failures >= min(ENOUGH << needless, MOST) or (failures >= ENOUGH and seconds >= RECENT)


def rows_are_at_fault(since_answer: float, *, failed_before: bool) -> bool:
    """Whether failures count without a probe: all these rows have `failed_before`, and something was answered just now.

    `since_answer`: seconds since the last request that was answered was sent.
    """
    return failed_before and since_answer < RECENT
