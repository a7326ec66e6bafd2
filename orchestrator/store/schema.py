"""The statements of schema.sql, which make the tables and indexes of a new ledger."""

from __future__ import annotations

import re
from importlib.resources import files

_COMMENT = re.compile(r"^ *--.*\n|  --.*", re.MULTILINE)


def statements() -> list[str]:
    """Return the statements that create the tables and indexes. Reads a file of this package."""
    text = (files("orchestrator.store") / "schema.sql").read_text(encoding="utf-8")
    return [statement.strip() for statement in _COMMENT.sub("", text).split(";\n") if statement.strip()]
