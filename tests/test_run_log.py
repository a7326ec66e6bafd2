"""The log of a run: one private file beside the ledger, on which nothing depends."""

from __future__ import annotations

import logging
import re
import stat
from pathlib import Path

import psutil
import pytest

from orchestrator.cli.terminal import LogHandler
from orchestrator.domain.events import AwaitingPause, RunBegan
from orchestrator.domain.phrases import EVENTS
from orchestrator.run_log import LARGE, LogLine, event_log, last_lines, lines_after, logged

BEGAN = RunBegan(7, "talk", 1)
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR) +\S.*")


async def log_of(ledger: Path, *, to: list[str] | None = None) -> list[str]:
    """Return the lines after a run began and saw events; warnings go to `to`."""
    warnings = [] if to is None else to
    async with logged(ledger, warnings.append) as log:
        log.emit(BEGAN)
        log.emit(AwaitingPause("e"))
    path = event_log(ledger, 7)
    return path.read_text().splitlines() if path.exists() else []


def open_files() -> list[Path]:
    """Return the files that this process has open."""
    return [Path(file.path) for file in psutil.Process().open_files()]


async def test_each_event_is_a_line_with_its_time_and_level(tmp_path: Path) -> None:
    began, awaiting = await log_of(tmp_path / "ledger.db")
    assert all(LINE.fullmatch(line) for line in (began, awaiting))
    assert began.endswith("INFO    run_began run=7 job=talk process=1")
    assert awaiting.endswith("INFO    awaiting_pause endpoint=e")


async def test_only_the_owner_can_read_the_log(tmp_path: Path) -> None:
    await log_of(tmp_path / "ledger.db")
    path = event_log(tmp_path / "ledger.db", 7)
    assert [stat.S_IMODE(one.stat().st_mode) for one in (path, path.parent)] == [0o600, 0o700]


async def test_a_log_is_closed_with_its_run(tmp_path: Path) -> None:
    await log_of(tmp_path / "ledger.db")
    assert all(tmp_path not in path.parents for path in open_files())


async def test_a_later_process_appends_even_after_a_truncated_line(tmp_path: Path) -> None:
    path = event_log(tmp_path / "ledger.db", 7)
    path.parent.mkdir()
    path.write_text("2026-11-29T20:44:28.000Z INFO    run_beg")
    cut, *lines = await log_of(tmp_path / "ledger.db")
    assert cut.endswith("run_beg")
    assert len(lines) == 2


async def test_warnings_of_libraries_are_logged(tmp_path: Path) -> None:
    async with logged(tmp_path / "ledger.db", pytest.fail) as log:
        log.emit(BEGAN)
        logging.getLogger("somebody").warning("cannot be reached\nat all")
        logging.getLogger("somebody").info("is of no interest")
    _, line = event_log(tmp_path / "ledger.db", 7).read_text().splitlines()
    assert line.endswith("WARNING somebody: cannot be reached\\nat all")


async def test_a_warning_with_wrong_arguments_fails_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with logged(tmp_path / "ledger.db", pytest.fail) as log:
        log.emit(BEGAN)
        for handler in (log.warnings, LogHandler()):
            handler.handle(logging.LogRecord("somebody", logging.WARNING, "f.py", 1, "%d items", ("many",), None))
    (_began,) = event_log(tmp_path / "ledger.db", 7).read_text().splitlines()
    assert capsys.readouterr().err.count("Message: '%d items'") == 2


@pytest.mark.parametrize(
    ("logger", "line"),
    [
        ("orchestrator.endpoints.hf_calls", "orchestrator: cannot reach Hugging Face, trying again\n"),
        ("somebody", "WARNING:somebody:cannot reach Hugging Face, trying again\n"),
    ],
)
def test_a_terminal_shows_our_warnings_as_our_other_messages(
    logger: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = "cannot reach %s, trying again"
    LogHandler().handle(logging.LogRecord(logger, logging.WARNING, "f.py", 1, message, ("Hugging Face",), None))
    assert capsys.readouterr().err == line


async def test_an_unwritable_log_is_reported_once(tmp_path: Path) -> None:
    (tmp_path / "ledger.db.runs").write_text("in the way")
    warnings = list[str]()
    assert await log_of(tmp_path / "ledger.db", to=warnings) == []
    (warning,) = warnings
    assert warning.endswith("7.events.log cannot be written: File exists; the run continues without it")


async def test_a_large_log_keeps_its_end(tmp_path: Path) -> None:
    path = event_log(tmp_path / "ledger.db", 7)
    path.parent.mkdir()
    path.write_text("x" * LARGE + "\n")
    lines = await log_of(tmp_path / "ledger.db")
    assert lines[0].endswith("bytes of output are left out here]")
    assert lines[-1].endswith("awaiting_pause endpoint=e")
    assert path.stat().st_size < LARGE / 5


async def test_events_also_go_to_logging(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger=EVENTS):
        await log_of(tmp_path / "ledger.db")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "run_began run=7 job=talk process=1"),
        ("INFO", "awaiting_pause endpoint=e"),
    ]


def test_a_log_is_read_on_in_whole_lines(tmp_path: Path) -> None:
    log = tmp_path / "1.events.log"
    assert lines_after(log, 0) == ([], 0)
    log.write_text("one\ntwo\nthr")
    assert lines_after(log, None) == ([], 11)
    lines, offset = lines_after(log, 0)
    assert (lines, offset) == (["one", "two"], 8)
    with log.open("a") as file:
        file.write("ee\n")
    assert lines_after(log, offset) == (["three"], 14)
    assert lines_after(log, 14) == ([], 14)


def test_of_much_that_was_logged_the_last_lines_are_read_and_a_cut_log_goes_on_at_its_end(tmp_path: Path) -> None:
    log = tmp_path / "1.events.log"
    log.write_text("".join(f"line {number}\n" for number in range(100)))
    lines, offset = lines_after(log, 0, most=30)
    assert (lines, offset) == (["line 97", "line 98", "line 99"], log.stat().st_size)
    log.write_text("cut\n")
    assert lines_after(log, offset) == ([], 4)


def test_the_last_lines_are_divided_into_time_level_and_text_unless_others_wrote_them(tmp_path: Path) -> None:
    log = tmp_path / "1.events.log"
    assert last_lines(log, 2) == []
    log.write_text("2026-11-30T04:00:00.000Z INFO    run_began run=1\n[9 bytes of output are left out here]\n" * 3)
    assert last_lines(log, 2) == [
        LogLine("2026-11-30T04:00:00.000Z", "info", "run_began run=1"),
        LogLine("", "", "[9 bytes of output are left out here]"),
    ]


def test_a_record_that_its_library_prints_itself_is_not_printed_twice(capsys: pytest.CaptureFixture[str]) -> None:
    own = logging.StreamHandler()
    logger = logging.getLogger("a_library_with_a_handler")
    logger.addHandler(own)
    logging.root.addHandler(ours := LogHandler())
    try:
        logger.getChild("part").warning("Retrying in 1s")
        logging.getLogger("another_library").warning("other news")
    finally:
        logging.root.removeHandler(ours)
        logger.removeHandler(own)
    assert capsys.readouterr().err.splitlines() == ["Retrying in 1s", "WARNING:another_library:other news"]
