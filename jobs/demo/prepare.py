"""Write what the demo and the jobs over reviews read, out of a package on PyPI; no job needs another command.

data/sentences.jsonl: some 5,000 sentences of newspaper editorials. data/reviews.jsonl, data/reviews.csv and
in/reviews.jsonl: 300 reviews of cameras, phones and players. data/lexicon.json: how people rated 7,000 words.

The corpus is in the source archive of vaderSentiment 2.5 only (its wheel leaves it out), so pip downloads that archive,
checks its hash, and installs nothing. The texts were collected for Hutto & Gilbert, "VADER" (ICWSM 2014).
"""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

ARCHIVE = "vaderSentiment==2.5 --hash=sha256:b960c954831f5ca58afee61780cc04ed48e551b91e783bfcbfb2c18bb8081a84"
CORPUS = "vaderSentiment-2.5/additional_resources/hutto_ICWSM_2014.tar.gz"
SENTENCES = "hutto_ICWSM_2014/nytEditorialSnippets_GroundTruth.txt"  # id, mean human rating, text
REVIEWS = (
    "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt"  # the same, a sentence each: the id is review_sentence
)
LEXICON = "hutto_ICWSM_2014/vader_sentiment_lexicon.txt"  # word, mean human rating, ...


def main() -> None:
    """Do nothing where all files are there already."""
    made = (Path("data/sentences.jsonl"), Path("data/reviews.csv"), Path("data/lexicon.json"), Path("in/reviews.jsonl"))
    if all(file.exists() for file in made):
        print(f"{made[0]} is there already, and so is the rest")
        return
    with tempfile.TemporaryDirectory() as folder:
        corpus = unpacked(downloaded(Path(folder)))
    rows = [line.split("\t") for line in corpus[SENTENCES]]
    sentences = [{"id": name, "rating": float(rating), "text": text.strip()} for name, rating, text in rows]
    reviews = list(whole(line.split("\t") for line in corpus[REVIEWS]))
    lexicon = {word: float(rating) for word, rating, *_ in (line.split("\t") for line in corpus[LEXICON] if line)}
    as_json = lines({"id": row["review_id"], "text": f"{row['title']} {row['body']}".strip()} for row in reviews)
    texts = (lines(sentences), table(reviews), json.dumps(lexicon), as_json)
    for file, text in (*zip(made, texts, strict=True), (Path("data/reviews.jsonl"), as_json)):
        file.parent.mkdir(exist_ok=True)
        aside = file.with_suffix(".tmp")
        aside.write_text(text, encoding="utf-8", newline="")
        aside.replace(file)
    print(f"{made[0]}: {len(sentences):,} sentences; data/reviews.jsonl and {made[1]}: {len(reviews)} reviews")


def whole(rows: Iterable[list[str]]) -> Iterable[dict[str, str]]:
    """Put the sentences of each review together; its first one is the title."""
    for number, (_, sentences) in enumerate(groupby(rows, key=lambda row: row[0].partition("_")[0]), 1):
        title, *body = (text.strip() for _, _, text in sentences)
        yield {"review_id": f"r{number:03}", "title": title, "body": " ".join(body)}


def lines(rows: Iterable[dict[str, object]]) -> str:
    """One JSON object a line."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def table(rows: list[dict[str, str]]) -> str:
    """The rows as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def downloaded(folder: Path) -> Path:
    """Have pip fetch the archive, from wherever this machine's pip gets its packages."""
    wanted = folder / "requirements.txt"
    wanted.write_text(ARCHIVE)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download"]
    options = ["--no-deps", "--no-binary=vaderSentiment", "--require-hashes", f"--dest={folder}"]
    if subprocess.run([*pip, *options, f"--requirement={wanted}"], check=False).returncode:
        raise SystemExit(
            "pip could not download vaderSentiment 2.5: see above. It needs a package index, and pip itself"
        )
    return next(folder.glob("*.tar.gz"))


def unpacked(archive: Path) -> dict[str, list[str]]:
    """Take the lines of the corpus out of an archive within the archive."""
    with tarfile.open(archive) as outer, tarfile.open(fileobj=io.BytesIO(read(outer, CORPUS))) as inner:
        return {name: read(inner, name).decode("latin-1").splitlines() for name in (SENTENCES, REVIEWS, LEXICON)}


def read(archive: tarfile.TarFile, name: str) -> bytes:
    """Return a member's bytes."""
    member = archive.extractfile(name)
    if member is None:
        raise SystemExit(f"{name} is not a file")
    with member:
        return member.read()


if __name__ == "__main__":
    main()
