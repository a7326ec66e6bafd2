"""What reaches a terminal, or a log of ours: text as it is, in which nothing acts. Files and JSON stay exact."""

from __future__ import annotations

import logging
import traceback
from datetime import UTC, datetime
from typing import Any

import typer
from rich.console import Console

from orchestrator.domain.phrases import visible
from orchestrator.run_log import EVENTS


class Terminal(Console):
    """A console that shows every text as it is: no markup, no emoji, no colours of its own, no control characters."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **settings)

    def render_str(self, text: str, **how: Any) -> Any:
        """Every text on its way to the screen comes by here: printed ones, and those in tables."""
        return super().render_str(visible(text), **how)


STDERR = Terminal(stderr=True, soft_wrap=True)


def say(*fields: object) -> None:
    """One line on standard output; several fields stand apart by tabs."""
    typer.echo("\t".join(visible(str(field)) for field in fields))


def show_traceback(error: BaseException) -> None:
    """Where a failure came from, on standard error."""
    for line in "".join(traceback.format_exception(error)).rstrip().split("\n"):
        STDERR.print(line)


class LogHandler(logging.Handler):
    """What libraries, and we, log: on standard error, line by line, beside whatever progress is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print it; events with the time of day, in UTC."""
        try:
            text = self.format(record)
        except Exception:  # noqa: BLE001 - its arguments do not fit its text: no reason for whoever logs it to fail
            self.handleError(record)
            return
        if record.name == EVENTS:
            at = datetime.fromtimestamp(record.created, UTC)
            text = f"{at:%H:%M:%S}Z {record.levelname:<7} {record.getMessage()}"
        for line in text.split("\n"):
            STDERR.print(line)
