"""Compression of outputs as they are written. The same bytes are always compressed to the same bytes."""

from __future__ import annotations

import bz2
import lzma
import zlib
from importlib import import_module
from typing import Protocol

_GZIP = 16 + zlib.MAX_WBITS  # with gzip's header, in which zlib writes neither a name nor a time


class Packer(Protocol):
    """Compresses a stream."""

    def compress(self, data: bytes, /) -> bytes:
        """Add the bytes. Return what is ready to be written."""
        ...

    def flush(self) -> bytes:
        """End the stream. Return the rest of what is to be written."""
        ...


def packer_for(packing: str) -> Packer:
    """Return a compressor of this kind."""
    match packing:
        case "gzip":
            return zlib.compressobj(wbits=_GZIP)
        case "bzip2":
            return bz2.BZ2Compressor()
        case "xz":
            return lzma.LZMACompressor()
        case _:
            return _Zstandard()


class _Zstandard:
    """Arrow's stream, which takes a file."""

    def __init__(self) -> None:
        arrow = import_module("pyarrow")  # importing takes 0.1 s, and few outputs need it
        self.closed = False  # Arrow asks
        self._ready: list[bytes] = []
        self._stream = arrow.CompressedOutputStream(arrow.PythonFile(self, "w"), "zstd")

    def compress(self, data: bytes, /) -> bytes:
        self._stream.write(data)
        return self._taken()

    def flush(self) -> bytes:
        self._stream.close()
        return self._taken()

    def write(self, data: bytes) -> int:
        """Keep what Arrow has compressed."""
        self._ready.append(bytes(data))
        return len(data)

    def close(self) -> None:
        """Note that Arrow has ended the stream."""
        self.closed = True

    def _taken(self) -> bytes:
        taken = b"".join(self._ready)
        self._ready.clear()
        return taken
