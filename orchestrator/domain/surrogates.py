"""Halves of surrogate pairs, which JSON's writers let pass and no UTF-8 holds."""

from __future__ import annotations


def whole(value: object) -> object:
    """The value with U+FFFD for half a surrogate pair, which no UTF-8 holds; two halves become their character."""
    if isinstance(value, str):
        return value if _encodes(value) else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {whole(key): whole(part) for key, part in value.items()}
    return list(map(whole, value)) if isinstance(value, list) else value


def _encodes(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
