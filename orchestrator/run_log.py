"""The event log of a run: one file for each run, beside the ledger. Nothing depends on its content.

A thread writes it, so that a slow disk delays no request. Each line is one write to the end of the file, so that
`kill -9` leaves whole lines, and the next process appends to them.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from anyio import CancelScope, to_thread

from orchestrator.domain.event_lines import Condenser, level_of, line_of
from orchestrator.domain.events import ItemsSettled, RunBegan
from orchestrator.domain.phrases import EVENTS, visible

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from orchestrator.domain.events import RunEvent

LARGE = 10_000_000  # bytes from which a log is cut
_END = 1_000_000  # bytes of it that are then kept
_LOOK = 5.0  # seconds between two checks for lines that are due
_COMMITS_FOR = 1.0  # seconds over which commits are added up
_CLOSING = 5.0  # seconds for writing the last lines
_logger = logging.getLogger(EVENTS)


def event_log(ledger: Path, run_id: int) -> Path:
    """Return the file for the events of a run, beside the ledger."""
    return _folder(ledger) / f"{run_id}.events.log"


def output_log(ledger: Path, run_id: int) -> Path:
    """Return the file for the standard output and error of a run that a daemon executes, beside the ledger."""
    return _folder(ledger) / f"{run_id}.log"


def forget_logs(ledger: Path, run_id: int) -> None:
    """Delete the logs of a run that has been deleted."""
    for log in (event_log(ledger, run_id), output_log(ledger, run_id)):
        with suppress(OSError):  # there is none, or the folder is read-only
            log.unlink()


def keep_small(log: Path) -> None:
    """Cut a large log to its end, with a line that says how much is missing.

    Other processes append to the log and continue at its new end. Lines that they write during the cut may come before
    those that are kept.
    """
    with suppress(OSError):  # the disk is full, or the log has been deleted
        size = log.stat().st_size
        if size <= LARGE:
            return
        with log.open("r+b") as file:
            file.seek(size - _END)
            end = file.read()
            file.truncate(0)
        with log.open("ab") as file:
            file.write(b"[%d bytes of output are left out here]\n" % (size - len(end)) + end)


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of an event log. `at`: the moment, as written. `level`: as in `logging`. Both are "" for foreign lines."""

    at: str
    level: str
    text: str


def last_lines(log: Path, most: int) -> list[LogLine]:
    """Return the last lines of an event log, oldest first; none if it does not exist."""
    lines, _ = lines_after(log, 0)
    return [_as_line(line) for line in lines[-most:]]


def _as_line(line: str) -> LogLine:
    at, level, text = [*line.split(maxsplit=2), "", ""][:3]
    return LogLine(at, level.lower(), text) if at.endswith("Z") and level.isupper() else LogLine("", "", line)


def lines_after(log: Path, offset: int | None, most: int = 65_536) -> tuple[list[str], int]:
    """Return the whole lines after an offset, and the offset behind them; None is the end of the log.

    Of more than `most` bytes, the last ones are returned. A log that was cut since is read from its new end.
    """
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if offset is None or offset > size:
                return [], size
            file.seek(max(offset, size - most))
            data = file.read(most)
    except OSError:  # nothing has been logged yet, or the log was deleted
        return [], 0
    whole = data[: data.rfind(b"\n") + 1]
    lines = whole.decode(errors="replace").splitlines()
    return lines[1:] if size - most > offset else lines, size - len(data) + len(whole)


def _folder(ledger: Path) -> Path:
    return ledger.with_name(f"{ledger.name}.runs")


@asynccontextmanager
async def logged(ledger: Path, warn: Callable[[str], None]) -> AsyncIterator[RunLog]:
    """Yield a listener that logs the run in the block. `warn` gets one line if its file cannot be written."""
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
    """An `EventListener` that sends events to `logging`, at their level, and in condensed form to the run's file.

    `warnings` is a handler for `logging` that also writes other log records to the file.
    """

    def __init__(self, ledger: Path, warn: Callable[[str], None]) -> None:
        self._ledger = ledger
        self._warn = warn
        self._queue: SimpleQueue[tuple[float, RunEvent | tuple[int, str]] | None] = SimpleQueue()
        self._file: _LogFile | None = None
        self._settled: ItemsSettled | None = None  # commits that have not been passed to the thread yet
        self._settled_at = 0.0
        self.warnings = _Warnings(self._queue)

    def emit(self, event: RunEvent) -> None:
        """Log an event. Can be called from any thread."""
        now = time.time()
        if isinstance(event, ItemsSettled):  # added up here, since waking the other thread costs more than many commits
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
        """Let the thread end once it has written everything."""
        self._put_settled(time.time())
        self._queue.put(None)

    def keep_writing(self) -> None:
        """Write entries until the log is closed; then close its file."""
        try:
            self._keep_writing()
        finally:
            if self._file is not None:
                self._file.close()

    def _keep_writing(self) -> None:
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
    """Takes log records other than events, of libraries and ours."""

    def __init__(self, queue: SimpleQueue[tuple[float, RunEvent | tuple[int, str]] | None]) -> None:
        super().__init__(logging.WARNING)
        self._queue = queue

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a record to the thread that writes."""
        if record.name == _logger.name:
            return
        try:
            text = visible(self.format(record))
        except Exception:  # noqa: BLE001 - a faulty log call must not make its caller fail
            self.handleError(record)
            return
        self._queue.put((record.created, (record.levelno, f"{record.name}: {text}")))


class _LogFile:
    """A file that only its owner can read. A failure to write is reported once; later lines are tried again."""

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self._path = path
        self._warn: Callable[[str], None] | None = warn
        self._descriptor: int | None = None
        self._whole = True  # whether the last line is complete

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
                self._warn(f"the log {self._path} cannot be written: {error.strerror}; the run continues without it")
                self._warn = None

    def close(self) -> None:
        """Close it. Nothing can be written any more."""
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _opened(self) -> int:
        if self._descriptor is None:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            size = os.fstat(self._descriptor).st_size
            self._whole = not size or os.pread(self._descriptor, 1, size - 1) == b"\n"
        return self._descriptor
