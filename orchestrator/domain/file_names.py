"""Names of files, which say how they are compressed: out.jsonl.gz is a compressed out.jsonl."""

from __future__ import annotations

from pathlib import PurePath

PACKINGS = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "Zstandard"}


def packing_of(name: str) -> str | None:
    """Return how a file of this name is compressed; None if it is not."""
    return PACKINGS.get(PurePath(name).suffix.lower())


def divided(name: str) -> tuple[str, str]:
    """Return a file's name without its suffixes, and these: its format, and how it is compressed."""
    path = PurePath(name)
    if packing_of(name) is None:
        return path.stem, path.suffix
    inner = PurePath(path.stem)
    return inner.stem, inner.suffix + path.suffix


def unpacked(name: str) -> str:
    """Return the name that the file has once it is decompressed."""
    return name if packing_of(name) is None else PurePath(name).stem
