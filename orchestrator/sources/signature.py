"""What kind of file it is by its first bytes, whatever its name says."""

from __future__ import annotations

from orchestrator.domain.file_names import PACKINGS

HEAD = 512  # bytes that are enough to recognize every kind

_PACKED = {
    "gzip": (b"\x1f\x8b",),
    "bzip2": tuple(b"BZh%d" % level + magic for level in range(1, 10) for magic in (b"1AY&SY", b"\x17rE8P\x90")),
    "xz": (b"\xfd7zXZ\0",),
    "Zstandard": (b"\x28\xb5\x2f\xfd", *(bytes([first]) + b"*M\x18" for first in range(0x50, 0x60))),
}

_SHEET = "save the sheet as CSV, or unpack the archive"
_IMAGE = "FilesSource reads images"
_BINARY = {
    b"PAR1\x15": ("Parquet", "read it with ParquetSource"),
    b"%PDF-": ("a PDF", "take its text out first"),
    b"PK\x03\x04": ("a zip archive, as .xlsx and .docx are", _SHEET),
    b"PK\x05\x06": ("an empty zip archive", _SHEET),
    b"\xd0\xcf\x11\xe0": ("an old Office file, as .xls", _SHEET),
    b"ARROW1": ("an Arrow file", "write it as Parquet"),
    b"FEA1": ("a Feather file", "write it as Parquet"),
    b"SQLite format 3\0": ("an SQLite database", "read it with QuerySource"),
    b"Obj\x01": ("an Avro file", "write it as Parquet"),
    b"\x93NUMPY": ("a NumPy array", "write it as Parquet"),
    b"\x80\x04\x95": ("a Python pickle", "write it as JSON Lines"),
    b"\x80\x05\x95": ("a Python pickle", "write it as JSON Lines"),
    b"\x04\x22\x4d\x18": ("an lz4 file", "unpack it with `lz4 -d`"),
    b"7z\xbc\xaf\x27\x1c": ("a 7-Zip archive", "unpack it"),
    b"\x89PNG": ("a PNG image", _IMAGE),
    b"\xff\xd8\xff": ("a JPEG image", _IMAGE),
    b"GIF8": ("a GIF image", _IMAGE),
    b"version https://git-lfs": ("a Git LFS pointer, not the file itself", "fetch it with `git lfs pull`"),
}
_PAGE = "an HTML page", "download the file again, as a server may have sent this in its place"
_MARKUP = {
    b"<!doctype html": _PAGE,
    b"<html": _PAGE,
    b"<?xml": ("XML", "write it as JSON Lines or CSV"),
}


def packing(head: bytes, suffix: str = "") -> str | None:
    """Return how the file is compressed, by its first bytes or else by its name, or None if it is not."""
    named = (name for name, magics in _PACKED.items() if head.startswith(magics))
    return next(named, None) or PACKINGS.get(suffix.lower())


def foreign(head: bytes, *, markup: bool = False, wide: bool = False) -> tuple[str, str] | None:
    """Return what a file is that cannot be read as UTF-8 text, and the remedy, or None if nothing shows that.

    `markup`: HTML and XML count too; they are text, but not what was meant. `wide`: UTF-16 is expected.
    """
    for magic, found in _BINARY.items():
        if head.startswith(magic):
            return found
    if head[8:12] == b"DUCK":
        return "a DuckDB database", "read it with QuerySource"
    if head[257:262] == b"ustar":
        return "a tar archive", "unpack it"
    if packed := packing(head):
        return f"packed twice, the second time as {packed}", "unpack it once"
    if not wide and (encoding := _encoding(head)):
        return encoding, f"convert it with `iconv -f {encoding} -t UTF-8`, or give `encoding=` to a CsvSource"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower() if markup else b""
    return next((found for magic, found in _MARKUP.items() if start.startswith(magic)), None)


def _encoding(head: bytes) -> str | None:
    """Recognize UTF-32 or UTF-16 by a byte order mark or by the zero bytes that ASCII has there."""
    if head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "UTF-32"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    zeros = tuple(byte == 0 for byte in head[:4])
    if zeros == (False, True, False, True):
        return "UTF-16LE"
    return "UTF-16BE" if zeros == (True, False, True, False) else None
