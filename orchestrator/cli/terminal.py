"""Output to terminals and logs: markup and control characters have no effect in it. Files and JSON stay exact."""

from __future__ import annotations

import logging
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

import typer
from rich.console import Console

from orchestrator.cli.output import is_read
from orchestrator.domain.command_line import with_options
from orchestrator.domain.phrases import EVENTS, visible

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence


class Terminal(Console):
    """A console that shows every text literally: no markup, no emoji, no highlighting, no control characters.

    Commands in messages repeat the global options `given`, so that they work when pasted; so they do in `say`.
    """

    given: ClassVar[Sequence[str]] = ()  # global options on the command line

    def __init__(self, **settings: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **settings)

    def print(self, *objects: Any, **how: Any) -> None:
        """Print the objects; texts are messages to the user."""
        shown = [with_options(one, self.given) if isinstance(one, str) else one for one in objects]
        super().print(*shown, **how)

    def render_str(self, text: str, **how: Any) -> Any:
        """Make control characters visible. Every text comes through here, both printed ones and those in tables."""
        return super().render_str(visible(text), **how)


_OURS = logging.Formatter("orchestrator: %(message)s")
_FOREIGN = logging.Formatter(logging.BASIC_FORMAT)

STDERR = Terminal(stderr=True, soft_wrap=True)


def say(message: object) -> None:
    """Print one line of our own words to standard output; commands in it repeat the global options."""
    say_fields(with_options(str(message), Terminal.given))


def say_fields(*fields: object) -> None:
    """Print one line to standard output: data as it is, separated by tabs."""
    typer.echo("\t".join(visible(str(field)) for field in fields))


async def say_all(lines: AsyncIterator[str]) -> None:
    """Print the lines until they end or standard output is closed by its reader."""
    async for line in lines:
        say_fields(*line.split("\t"))
        if not is_read():
            return


def show_traceback(error: BaseException) -> None:
    """Print the traceback of a failure to standard error."""
    for line in "".join(traceback.format_exception(error)).rstrip().split("\n"):
        STDERR.print(line)


def _printed_by_its_library(record: logging.LogRecord) -> bool:
    """Whether a handler below the root prints it, too: huggingface_hub has one, and hands its records on as well."""
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None and logger is not logging.root:
        if any(type(handler) is logging.StreamHandler for handler in logger.handlers):
            return True
        logger = logger.parent
    return False


class LogHandler(logging.Handler):
    """Prints log records to standard error, line by line, above the progress bar; ours as other messages."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record; one of a library names its level and its logger."""
        return (_OURS if record.name.startswith("orchestrator.") else _FOREIGN).format(record)

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record; events with the time of day in UTC."""
        if _printed_by_its_library(record):
            return
        try:
            text = self.format(record)
        except Exception:  # noqa: BLE001 - a faulty log call must not make its caller fail
            self.handleError(record)
            return
        if record.name == EVENTS:
            at = datetime.fromtimestamp(record.created, UTC)
            text = f"{at:%H:%M:%S}Z {record.levelname:<7} {record.getMessage()}"
        for line in text.split("\n"):
            STDERR.print(line)
