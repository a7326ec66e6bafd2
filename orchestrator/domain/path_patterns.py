"""Which paths a pattern matches, part by part, as `glob` does."""

from __future__ import annotations

from fnmatch import fnmatchcase


def fits(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Whether a path matches part by part; `**` matches folders at any depth, no wildcard a hidden file or folder."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        deeper = bool(parts) and not parts[0].startswith(".") and fits(parts[1:], pattern)
        return deeper or fits(parts, pattern[1:])
    if not parts or (parts[0].startswith(".") and not pattern[0].startswith(".")):
        return False
    return fnmatchcase(parts[0], pattern[0]) and fits(parts[1:], pattern[1:])
