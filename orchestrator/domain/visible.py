"""Foreign text made visible: characters that would act on a terminal, or forge a line, are shown as escapes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from re import Match

# C0, DEL, C1; marks that turn the direction of a line; separators of lines; halves of pairs, which no file takes
_ACTS = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(text: str) -> str:
    r"""The text on one line, in which nothing acts: it shows `\x1b` for ESC, `\n` for the end of a line."""
    return _ACTS.sub(_escaped, text)


def visible_json(text: str) -> str:
    """JSON that means the same, in which nothing acts. It may be indented."""
    return _ACTS.sub(lambda found: found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)


def _escaped(found: Match[str]) -> str:
    code = ord(found[0])
    return _SHORT.get(found[0]) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")  # noqa: PLR2004 - a byte
