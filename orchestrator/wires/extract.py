"""The JSON in a text that a model wrote."""

from __future__ import annotations

import re
from json import JSONDecoder

from orchestrator import exact_json

_FENCE = re.compile(r"```[\w-]*\s*\n(.*?)```", re.DOTALL)
_OPENING = re.compile(r"[\[{]")
_STARTS = 100  # brackets that are tried, so that a text of nothing but brackets does not take seconds
_decoder = JSONDecoder()


def found_json(text: str) -> object | None:
    """Return the longest JSON object or list in the text, from a fenced block if there is one; None without any.

    JSON nested inside other JSON does not count, and neither does anything that a strict reader would refuse (NaN, half
    a surrogate pair).
    """
    for place in (*_FENCE.findall(text), text):
        value = _longest(place)
        if value is not None:
            return value
    return None


def is_json(text: str) -> tuple[bool, object]:
    """Return whether the whole text is JSON, and its value."""
    try:
        return True, exact_json.loads(text)
    except ValueError:
        return False, None


def _longest(text: str) -> object | None:
    value, longest, position = None, 0, 0
    for _ in range(_STARTS):
        opening = _OPENING.search(text, position)
        if opening is None:
            break
        start = opening.start()
        end, position = _end(text, start), start + 1
        if end is None:
            continue
        position = end
        fits, found = is_json(text[start:end])
        if fits and end - start > longest:
            value, longest = found, end - start
    return value


def _end(text: str, start: int) -> int | None:
    """Return where the JSON that begins here ends."""
    try:
        return _decoder.raw_decode(text, start)[1]
    except (ValueError, RecursionError):
        return None
