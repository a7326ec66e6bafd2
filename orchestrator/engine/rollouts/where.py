"""Where in the user's code a rollout failed."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

from orchestrator.domain.errors import FailureKind, RequestFailed, described

_NOT_THE_USERS = str(Path(__file__).parents[2]), sysconfig.get_path("stdlib"), "<frozen "
_PACKAGES = {"site-packages", "dist-packages"}  # also of environments below this one


def failure_of(error: BaseException) -> RequestFailed:
    """Return why an item is discarded whose rollout raised this: what, and where in the user's code."""
    while isinstance(error, BaseExceptionGroup):  # of a task group of the user
        error = error.exceptions[0]
    where = _where(error)
    place = f" (at {where})" if where is not None else ""
    if isinstance(error, RequestFailed):
        return RequestFailed(error.kind, f"{error.message}{place}", status=error.status)
    return RequestFailed(FailureKind.ROLLOUT, f"{described(error)}{place}")


def is_the_users(file: str) -> bool:
    """Whether code is the user's own: neither ours, nor of Python or an installed package."""
    return not file.startswith(_NOT_THE_USERS) and _PACKAGES.isdisjoint(Path(file).parts)


def _where(error: BaseException) -> str | None:
    """Return the innermost place outside of libraries; None if there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        if is_the_users(frame.filename):
            return f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}"
    return None
