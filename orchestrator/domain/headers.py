"""Headers that a user gives: what can be sent of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")  # a line end would begin another header


def usable_headers(headers: Mapping[str, str], where: str = "headers") -> dict[str, str]:
    """The headers without the white space around values: a secret that was read from a file ends with its line.

    `ValueError` names one that cannot be sent, and does not show it.
    """
    usable = {}
    for name, value in headers.items():
        if not _NAME.fullmatch(str(name)):
            raise ValueError(f"{where}: {name!r} cannot be the name of a header")
        if not isinstance(value, str):
            raise ValueError(f"{where}[{name!r}] must be a text, not a value of the type {type(value).__name__}")  # noqa: TRY004 - a wrong setting
        usable[name] = value.strip()
        if _UNSENDABLE.search(usable[name]):
            raise ValueError(f"{where}[{name!r}] holds a line end or another character that no header may hold")
    return usable
