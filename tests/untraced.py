"""Threads of the services that tests start: tracing them for coverage would take longer than they do."""

from __future__ import annotations

import sys
from threading import Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class UntracedThread(Thread):
    """A thread that is not traced."""

    def run(self) -> None:
        sys.settrace(None)
        super().run()


def untraced(function: Callable[..., None]) -> Callable[..., None]:
    """Return a function that does the same, in a thread that is not traced from then on."""

    def run(*arguments: Any) -> None:
        sys.settrace(None)
        function(*arguments)

    return run
