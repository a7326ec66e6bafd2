"""Write data/sentences.jsonl: some 5,000 sentences of newspaper editorials, out of a package on PyPI.

The corpus is in the source archive of vaderSentiment 2.5 only (its wheel leaves it out), so pip downloads that archive,
checks its hash, and installs nothing. The sentences were collected for Hutto & Gilbert, "VADER" (ICWSM 2014).
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ARCHIVE = "vaderSentiment==2.5 --hash=sha256:b960c954831f5ca58afee61780cc04ed48e551b91e783bfcbfb2c18bb8081a84"
CORPUS = "vaderSentiment-2.5/additional_resources/hutto_ICWSM_2014.tar.gz"
SENTENCES = "hutto_ICWSM_2014/nytEditorialSnippets_GroundTruth.txt"  # id, mean human rating, text
TARGET = Path("data/sentences.jsonl")


def main() -> None:
    """Do nothing where the file is there already."""
    if TARGET.exists():
        print(f"{TARGET} is there already")
        return
    with tempfile.TemporaryDirectory() as folder:
        lines = unpacked(downloaded(Path(folder)))
    aside = TARGET.with_suffix(".tmp")
    TARGET.parent.mkdir(exist_ok=True)
    with aside.open("w", encoding="utf-8") as file:
        for line in lines:
            name, rating, text = line.split("\t")
            file.write(json.dumps({"id": name, "rating": float(rating), "text": text.strip()}) + "\n")
    aside.replace(TARGET)
    print(f"{TARGET}: {len(lines):,} sentences")


def downloaded(folder: Path) -> Path:
    """Have pip fetch the archive, from wherever this machine's pip gets its packages."""
    wanted = folder / "requirements.txt"
    wanted.write_text(ARCHIVE)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download"]
    options = ["--no-deps", "--no-binary=vaderSentiment", "--require-hashes", f"--dest={folder}"]
    subprocess.run([*pip, *options, f"--requirement={wanted}"], check=True)  # noqa: S603 - our own words
    return next(folder.glob("*.tar.gz"))


def unpacked(archive: Path) -> list[str]:
    """Take the lines of the corpus out of an archive within the archive."""
    with tarfile.open(archive) as outer, tarfile.open(fileobj=io.BytesIO(read(outer, CORPUS))) as inner:
        return read(inner, SENTENCES).decode("latin-1").splitlines()


def read(archive: tarfile.TarFile, name: str) -> bytes:
    """Return a member's bytes."""
    member = archive.extractfile(name)
    if member is None:
        raise SystemExit(f"{name} is not a file")
    with member:
        return member.read()


if __name__ == "__main__":
    main()
