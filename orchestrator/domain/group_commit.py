"""Group commit: how many requests a commit waits for, and whether it is made on the event loop."""

COMMIT_WAIT = 0.001  # seconds that a commit waits for more requests, which is less than it usually takes
_FEW = 16  # rows
_QUICK = 0.02  # seconds


def is_worth_a_commit(requests: int, in_flight: int) -> bool:
    """Whether so many answered requests, of those that may be in flight, are committed without waiting for more."""
    return requests * 4 >= in_flight * 3


def may_block(rows: float, lately: float) -> bool:
    """Whether the event loop itself makes a commit of so many rows, if the last one took `lately` seconds.

    A trip to a thread costs as much as the commit of a few rows. What many rows cost is better spent beside the loop,
    and a slow disk must not hold it up.
    """
    return rows <= _FEW and lately < _QUICK
