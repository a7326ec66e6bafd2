"""The log of a run: one file for each run, beside the ledger. What happens is written there, and nothing depends on it.

A thread writes, so that a slow disk holds up no request. A line is one write to the end of the file, so that `kill -9`
leaves whole lines, and the next process appends to them.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from anyio import CancelScope, to_thread

from orchestrator.domain.event_lines import Condenser, level_of, line_of
from orchestrator.domain.events import ItemsSettled, RunBegan
from orchestrator.domain.phrases import visible

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from orchestrator.domain.events import RunEvent

LARGE = 10_000_000  # bytes from which on a log is cut
_END = 1_000_000  # bytes of it that are kept then
_LOOK = 5.0  # seconds between two looks for lines that have become due
_COMMITS_FOR = 1.0  # seconds for which commits are added up
_CLOSING = 5.0  # seconds that the last lines are given
EVENTS = "orchestrator.events"  # the logger to which events go
_logger = logging.getLogger(EVENTS)


def event_log(ledger: Path, run_id: int) -> Path:
    """Where what happens during a run is kept: beside the ledger."""
    return _folder(ledger) / f"{run_id}.events.log"


def output_log(ledger: Path, run_id: int) -> Path:
    """Where a run's standard output and error are kept when a daemon has it executed: beside the ledger."""
    return _folder(ledger) / f"{run_id}.log"


def forget_logs(ledger: Path, run_id: int) -> None:
    """Delete what is kept of a run that has been deleted."""
    for log in (event_log(ledger, run_id), output_log(ledger, run_id)):
        with suppress(OSError):  # there is none, or somebody has made the folder read-only
            log.unlink()


def keep_small(log: Path) -> None:
    """Leave out all but the end of a log that has become large, and say how much that was.

    Who writes to it appends, and goes on at its new end; words that come meanwhile may stand before what is kept.
    """
    with suppress(OSError):  # a full disk, or somebody has tidied up
        size = log.stat().st_size
        if size <= LARGE:
            return
        with log.open("r+b") as file:
            file.seek(size - _END)
            end = file.read()
            file.truncate(0)
        with log.open("ab") as file:
            file.write(b"[%d bytes of output are left out here]\n" % (size - len(end)) + end)


def _folder(ledger: Path) -> Path:
    return ledger.with_name(f"{ledger.name}.runs")


@asynccontextmanager
async def logged(ledger: Path, warn: Callable[[str], None]) -> AsyncIterator[RunLog]:
    """A listener that logs the run that begins during the block. `warn` gets one line if its file cannot be written."""
    log = RunLog(ledger, warn)
    thread = threading.Thread(target=log.keep_writing, name="run log", daemon=True)
    thread.start()
    logging.getLogger().addHandler(log.warnings)
    try:
        yield log
    finally:
        logging.getLogger().removeHandler(log.warnings)
        log.close()
        with CancelScope(shield=True):
            await to_thread.run_sync(thread.join, _CLOSING)


class RunLog:
    """An `EventListener`: events go to `logging`, at their level, and condensed to the run's file.

    `warnings`, a handler for `logging`, takes into the file what else is logged.
    """

    def __init__(self, ledger: Path, warn: Callable[[str], None]) -> None:
        self._ledger = ledger
        self._warn = warn
        self._queue: SimpleQueue[tuple[float, RunEvent | tuple[int, str]] | None] = SimpleQueue()
        self._file: _LogFile | None = None
        self._settled: ItemsSettled | None = None  # what was committed since the thread was last told
        self._settled_at = 0.0
        self.warnings = _Warnings(self._queue)

    def emit(self, event: RunEvent) -> None:
        """Log an event, from whichever thread."""
        now = time.time()
        if isinstance(event, ItemsSettled):  # added up here: to wake the other thread costs more than many commits
            self._settled = event if self._settled is None else self._settled + event
            if now < self._settled_at + _COMMITS_FOR:
                return
        self._put_settled(now)
        if not isinstance(event, ItemsSettled):
            level = level_of(event)
            if _logger.isEnabledFor(level):
                _logger.log(level, "%s", line_of(event))
            self._queue.put((now, event))

    def _put_settled(self, now: float) -> None:
        settled, self._settled, self._settled_at = self._settled, None, now
        if settled is not None:
            self._queue.put((now, settled))

    def close(self) -> None:
        """End the thread that writes, once everything has been written."""
        self._put_settled(time.time())
        self._queue.put(None)

    def keep_writing(self) -> None:
        """Write what comes until the log is closed."""
        condenser = Condenser()
        while True:
            try:
                entry = self._queue.get(timeout=_LOOK)
            except Empty:
                self._write(time.time(), condenser.due(time.time()))
                continue
            if entry is None:
                self._write(time.time(), condenser.rest())
                return
            at, event = entry
            if isinstance(event, tuple):
                self._write(at, [event])
                continue
            if isinstance(event, RunBegan):
                self._file = _LogFile(event_log(self._ledger, event.run), self._warn)
            self._write(at, condenser.take(event, at))

    def _write(self, at: float, lines: list[tuple[int, str]]) -> None:
        if self._file is not None and lines:
            moment = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")
            for level, text in lines:
                self._file.write(f"{moment}Z {logging.getLevelName(level):<7} {text}\n")


class _Warnings(logging.Handler):
    """What libraries, and we, log otherwise."""

    def __init__(self, queue: SimpleQueue[tuple[float, RunEvent | tuple[int, str]] | None]) -> None:
        super().__init__(logging.WARNING)
        self._queue = queue

    def emit(self, record: logging.LogRecord) -> None:
        """Write it down."""
        if record.name == _logger.name:
            return
        try:
            text = visible(self.format(record))
        except Exception:  # noqa: BLE001 - its arguments do not fit its text: no reason for whoever logs it to fail
            self.handleError(record)
            return
        self._queue.put((record.created, (record.levelno, f"{record.name}: {text}")))


class _LogFile:
    """A file that only its owner can read. Where it cannot be written, that is said once, and tried again."""

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self._path = path
        self._warn: Callable[[str], None] | None = warn
        self._descriptor: int | None = None
        self._whole = True  # whether the last line has its end

    def write(self, line: str) -> None:
        """Append a line."""
        try:
            descriptor = self._opened()
            data = f"{'' if self._whole else chr(10)}{line}".encode(errors="replace")
            written = os.write(descriptor, data)
            self._whole = written == len(data)
            if os.fstat(descriptor).st_size > LARGE:
                keep_small(self._path)
        except OSError as error:
            if self._warn is not None:
                self._warn(f"the log {self._path} cannot be written: {error.strerror}; the run goes on without it")
                self._warn = None

    def _opened(self) -> int:
        if self._descriptor is None:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            size = os.fstat(self._descriptor).st_size
            self._whole = not size or os.pread(self._descriptor, 1, size - 1) == b"\n"
        return self._descriptor
