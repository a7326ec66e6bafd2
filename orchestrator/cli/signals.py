"""Ctrl-C and SIGTERM: the first stops cleanly, the second aborts; the endpoint is paused either way."""

from __future__ import annotations

import asyncio
import math
import os
import select
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import anyio

from orchestrator.domain.events import Phase
from orchestrator.domain.exit_code import ExitCode
from orchestrator.engine.run.stoppable import stoppable
from orchestrator.parent import readable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from types import FrameType

    from anyio.streams.memory import MemoryObjectReceiveStream

    from orchestrator.engine.progress import Progress
    from orchestrator.engine.stop import Stop
    from orchestrator.store.busy_timeout import BusyTimeout

T = TypeVar("T")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Signals that were ignored when this process started, as under `nohup`. A job file that ignores one changes nothing.
_IGNORED = frozenset(number for number in _SIGNALS if signal.getsignal(number) is signal.SIG_IGN)
_FIRST = 30.0  # seconds that the event loop has to take a signal: the job's code may just be busy
_SECOND = 5.0  # the same, from the second signal on
_ENDING = 15.0  # seconds that ending may take, not counting pausing, which has deadlines of its own
_LOOK = 0.5  # seconds between two checks of whether the run has ended


async def heeding_signals(
    work: Callable[[Stop], Awaitable[T]], progress: Progress, busy_timeout: BusyTimeout, grace: float
) -> T:
    """Do the work, and ask it to stop when a signal arrives. Raises `Interrupted` if a signal ended it.

    The first signal drains, the second aborts. If the work has not ended in time after that, the process is ended.
    """
    with received() as signals:
        return await stoppable(signals, work, progress, busy_timeout, grace, partial(_see_it_end, progress))


@contextmanager
def received() -> Iterator[MemoryObjectReceiveStream[int]]:
    """Receive signals. Once the block has ended, signals are ignored: the process is about to end.

    There is no gap between the two handlers. `anyio.open_signal_receiver` has one: a Ctrl-C at the end of its block
    is a traceback. If the event loop does not take its signals in time, the process is ended by force.
    """
    sender, receiver = anyio.create_memory_object_stream[int](math.inf)

    def deliver(number: int) -> None:
        with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):  # the block has ended in the meantime
            sender.send_nowait(number)

    with sender, receiver, _Way(asyncio.get_running_loop(), deliver):
        yield receiver


class _Way:
    """Carries signals to the event loop, by a thread, since the main thread may be blocked in the job's code.

    Python's own handlers run in the main thread, between two of its instructions. If the main thread never gets there,
    this thread ends the process. If the main thread also blocks all others, as long arithmetic does, an alarm ends it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, deliver: Callable[[int], None]) -> None:
        self._loop = loop
        self._deliver = deliver
        self._pid = os.getpid()
        self._wanted = [number for number in _SIGNALS if number not in _IGNORED]
        self._alarm: Any = None  # the previous handler, whose type has no public name in typeshed
        self._untaken: list[float] = []  # arrival times of signals that the event loop has not taken yet
        self._received = 0
        self._ours, self._given = os.pipe()
        os.set_blocking(self._given, False)

    def __enter__(self) -> None:
        self._others = signal.set_wakeup_fd(self._given, warn_on_full_buffer=False)
        threading.Thread(target=self._carry, name="signals", daemon=True).start()
        for number in self._wanted:
            signal.signal(number, self._receive)
        _STANDING.append(self)

    def __exit__(self, *_: object) -> None:
        _STANDING.remove(self)
        for number in self._wanted:
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(self._others)
        os.write(self._given, b"\0")  # 0 is not a signal: it ends the thread
        os.close(self._given)

    def leave_to_child(self) -> None:
        """Restore default signal handling in a child that the job's code has forked, and end it when its parent ends.

        Otherwise the workers of a process pool would stay for ever: they wait for work on a pipe whose other end they
        hold themselves.
        """
        signal.set_wakeup_fd(-1)
        for number in self._wanted:  # not the previous handlers: those are ours as well
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        if os.getppid() == self._pid:  # otherwise it was detached on purpose
            threading.Thread(target=self._end_child, name="lifeline", daemon=True).start()

    def _end_child(self) -> None:
        readable(self._pid, [])
        os.kill(os.getpid(), signal.SIGTERM)

    def _receive(self, _number: int, _frame: FrameType | None) -> None:
        """Count a signal. The thread learns which one it is through Python's wakeup descriptor."""
        self._received += 1
        if self._received == 2:
            self._alarm = signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, 2 * _SECOND)

    def _carry(self) -> None:
        came = select.poll()  # unlike `select.select`, it has no limit on descriptor numbers
        came.register(self._ours, select.POLLIN)
        while True:
            ready = came.poll(self._busy_timeout())
            if not ready and self._untaken:
                end_now()
            for number in os.read(self._ours, 4096) if ready else b"":
                if number == 0:
                    os.close(self._ours)
                    return
                self._untaken.append(time.monotonic())
                with suppress(RuntimeError):  # the event loop has ended
                    self._loop.call_soon_threadsafe(self._take, number)

    def _busy_timeout(self) -> float | None:
        """Return the milliseconds that the event loop has left to take the signals; None if there are none."""
        match list(self._untaken):
            case []:
                return None
            case [first]:
                until = first + _FIRST
            case [first, second, *_]:
                until = min(first + _FIRST, second + _SECOND)
        return max(0.0, until - time.monotonic()) * 1000

    def _take(self, number: int) -> None:
        self._untaken.clear()
        if self._received > 1:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._alarm or signal.SIG_DFL)
        self._received = 0
        if number in self._wanted:
            self._deliver(number)


_STANDING: list[_Way] = []


def _after_fork() -> None:
    for way in _STANDING:
        way.leave_to_child()


os.register_at_fork(after_in_child=_after_fork)


def end_now() -> NoReturn:
    """End this process, whatever it is doing. Its guard pauses the endpoints that it keeps awake."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)  # noqa: SLF001 - there is no other way
    where = "" if frame is None else f" ({frame.f_code.co_filename}, line {frame.f_lineno})"
    message = f"orchestrator: ended by force, since the job's code did not stop{where}; the guard pauses endpoints"
    with suppress(OSError):  # its reader may have gone
        os.write(2, f"{message}\n".encode(errors="replace"))
    os._exit(ExitCode.INTERRUPTED)


async def _see_it_end(progress: Progress) -> None:
    """End the process if it has not ended in time, because of a thread that no cancellation can stop, for example."""
    left = _ENDING
    while left > 0:
        await anyio.sleep(_LOOK)
        if progress.phase is not Phase.PAUSE:
            left -= _LOOK
    end_now()
