"""Writing a page to a file that the user names: nothing but an earlier page is replaced."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from orchestrator.cli.command import fail
from orchestrator.cli.terminal import STDERR
from orchestrator.domain.errors import UsageError
from orchestrator.engine.run.files import check_needed
from orchestrator.report.document import is_page

if TYPE_CHECKING:
    from pathlib import Path


def check_page(path: Path, ledger: Path) -> None:
    """Raise `UsageError` if the page would overwrite the ledger, or a file that is not an earlier page."""
    check_needed([path], ledger, None)
    if path.is_file() and not is_page(path):
        raise UsageError(f"{path} already exists and is not a report of orchestrator: choose another path or remove it")


def write_page(path: Path, text: str, *, json: bool) -> None:
    """Replace the file atomically, so that a browser never loads half of one."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        fail(UsageError(f"{path} cannot be written: {error.strerror}"), json=json)
    STDERR.print(f"written: {path}")
