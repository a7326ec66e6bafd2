"""`orchestrator` as a child process, with its own folder, ledger and a bare environment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import orjson
import psutil

from orchestrator.store.sqlite import DRIVER
from tests.ledgers import new_ledger
from tests.nursery import Forked, as_in_a_terminal, can_become

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

COMMAND = (sys.executable, "-P", "-m", "orchestrator")
POLL = 0.02
DEADLINE = 120.0  # seconds for any event, however busy the machine: only a failure waits that long
_MARK = "ORCHESTRATOR_TEST_MARK"
# It does not import ParquetSink: pyarrow and numpy cost a command as much as everything else that it does.
_JOB = """
from orchestrator import Job, Policy
from orchestrator.domain.policy import Backoff
from orchestrator.endpoints import HttpEndpoint, LocalEndpoint
from orchestrator.sinks import CsvSink, JsonlSink
from orchestrator.sources import CsvSource, IterableSource, JsonlSource

{prelude}

job = Job(
    name={name},
    source={source},
    request={request},
    parse={parse},
    endpoint={endpoint},
    sink={sink},
    policy=Policy({policy}),
)
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """The result of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """All of stdout, which must be one JSON value."""
        return orjson.loads(self.out)

    @property
    def line(self) -> str:
        """All of stderr, which must be one line."""
        assert "Traceback" not in self.err
        (line,) = self.err.splitlines()
        return line


class Running:
    """A running command."""

    def __init__(self, process: subprocess.Popen[str] | Forked) -> None:
        self.process = process
        self.pid = process.pid

    def send(self, number: signal.Signals) -> None:
        """Send a signal and wait until the process has received it, so that a second one is not merged with it."""
        self.process.send_signal(number)
        until(lambda: self.process.poll() is not None or not _pending(self.pid, number))

    def catches(self, number: signal.Signals) -> bool:
        """Whether the process has a handler for the signal."""
        return _masked(self.pid, number, "SigCgt")

    def says(self, words: str) -> None:
        """Wait until stderr contains this text; return everything read from it so far."""
        assert self.process.stderr is not None
        assert any(words in line for line in self.process.stderr), f"has ended without {words!r}"

    def end(self, seconds: float = DEADLINE) -> Ended:
        out, err = self.process.communicate(timeout=seconds)
        return Ended(self.process.wait(), out, err)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


class Workplace:
    """A folder with rows, job files and a ledger. A mark identifies every process started here."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.mark = token_hex(8)
        self.ledger = folder / "ledger.db"
        self.rows = folder / "rows.jsonl"
        self.output = folder / "out.jsonl"
        self._forked: list[int] = []

    # -- making ----------------------------------------------------------------------------------------------------

    def write_rows(self, rows: Iterable[Mapping[str, object]]) -> None:
        self.rows.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))

    def job(self, file: str = "job.py", **code: str) -> Path:
        """Write a job file; every part is Python source text."""
        parts = {
            "prelude": "",
            "name": repr("talk"),
            "source": f"JsonlSource({str(self.rows)!r}, id='id')",
            "request": "'{text}'",
            "parse": "None",
            "endpoint": f"HttpEndpoint({self.url!r})",
            "sink": f"JsonlSink({str(self.output)!r}, keep=['id', 'text'])",
            "policy": "concurrency=8, backoff=Backoff(first=0.01)",
        }
        assert code.keys() <= parts.keys()
        path = self.folder / file
        path.write_text(_JOB.format(**parts | code))
        return path

    def make_ledger(self) -> None:
        """Create an empty ledger, as the first run does."""
        new_ledger(self.ledger)

    # -- running ---------------------------------------------------------------------------------------------------

    def run(
        self, *arguments: str | Path, env: Mapping[str, str] | None = None, seconds: float = DEADLINE, db: bool = True
    ) -> Ended:
        with self.start(*arguments, env=env, db=db) as running:
            return running.end(seconds)

    @contextmanager
    def start(
        self, *arguments: str | Path, env: Mapping[str, str] | None = None, db: bool = True, fresh: bool = False
    ) -> Iterator[Running]:
        """Start a command; it is killed when the block ends. `fresh` starts it as a new interpreter."""
        said = [str(argument) for argument in arguments]
        environment = self.environment() | ({"ORCHESTRATOR_DB": str(self.ledger)} if db else {}) | dict(env or {})
        process: subprocess.Popen[str] | Forked
        if can_become(environment) and not fresh:
            process = Forked(said, environment, self.folder)
            self._forked.append(process.pid)
        else:
            process = subprocess.Popen(
                [*COMMAND, *said],
                env=environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                preexec_fn=as_in_a_terminal,  # noqa: PLW1509 - this process has no other threads that matter
            )
        try:
            yield Running(process)
        finally:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            process.kill()
            sys.stderr.write(process.communicate()[1])  # shown if the test fails

    def environment(self) -> dict[str, str]:
        """Return only the variables that every process needs."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder), _MARK: self.mark}

    # -- looking ---------------------------------------------------------------------------------------------------

    def outputs(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.output.read_bytes().splitlines()]

    def failures(self) -> list[dict[str, Any]]:
        path = self.output.with_name("out.failures.jsonl")
        return [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []

    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = orjson.loads(self.output.with_name("out.manifest.json").read_bytes())
        return found

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Query the ledger; return no rows if there is no ledger yet."""
        if not self.ledger.exists():
            return []
        with closing(DRIVER.connect(f"file:{self.ledger}?mode=ro", uri=True, timeout=10)) as connection:
            try:
                found: list[tuple[Any, ...]] = connection.execute(sql).fetchall()
            except DRIVER.OperationalError as error:
                if "no such table" in str(error):
                    return []
                raise
        return found

    def count(self, table: str, where: str = "true") -> int:
        found = self.query(f"SELECT count(*) FROM {table} WHERE {where}")
        return int(found[0][0]) if found else 0

    def change(self, sql: str, values: Sequence[object] = ()) -> None:
        """Change the ledger directly, bypassing the store."""
        with closing(DRIVER.connect(self.ledger, timeout=10)) as connection, connection:
            connection.execute(sql, values)

    def suspend(self, pid: int) -> None:
        """Suspend a process at a moment at which it does not write to the ledger: others would wait for its lock."""
        until(lambda: self._suspended(pid))

    def _suspended(self, pid: int) -> bool:
        os.kill(pid, signal.SIGSTOP)
        until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
        with closing(DRIVER.connect(self.ledger, isolation_level=None, timeout=0.0)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except DRIVER.OperationalError:
                os.kill(pid, signal.SIGCONT)
                return False
        return True

    def processes(self) -> list[psutil.Process]:
        """Return all live processes started from here, directly or not."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                mine = process.pid in self._forked or process.environ().get(_MARK) == self.mark
                if mine and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


def rows(numbers: Iterable[int], text: str = "text of {}") -> list[dict[str, object]]:
    return [{"id": f"i{number}", "text": text.format(number)} for number in numbers]


def until(happened: Callable[[], object], seconds: float = DEADLINE) -> None:
    """Poll until the condition is true."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"did not happen within {seconds} s"
        time.sleep(POLL)


def _pending(pid: int, number: signal.Signals) -> bool:
    return _masked(pid, number, "SigPnd", "ShdPnd")


def _masked(pid: int, number: signal.Signals, *masks: str) -> bool:
    """Whether the signal is in one of these masks of the process."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False
    found = [int(line.split()[1], 16) for line in lines if line.partition(":")[0] in masks]
    return any(mask >> (number - 1) & 1 for mask in found)
