"""README.md of a dataset: our part of it and of its YAML head, and that the rest stays as somebody wrote it."""

from __future__ import annotations

import pytest
import yaml  # type: ignore[import-untyped] # its stubs are a package of their own

from orchestrator.domain.errors import UsageError
from orchestrator.sinks.readme import DataFiles, readme

OURS = "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n"
END = "<!-- orchestrator: end of default/train -->"


def made(
    existing: bytes | None = None,
    part: str = "our words",
    *,
    split: str = "train",
    config: str = "default",
    rows: int = 1,
    others: tuple[str, ...] = (),
    overwrite: bool = False,
) -> bytes:
    folder = "data" if config == "default" else config
    files = DataFiles(config, split, f"{folder}/{split}-*", rows, others, overwrite)
    return readme(existing, part, files, title="reviews", where="acme/reviews/README.md")


def head(card: bytes) -> dict[str, object]:
    found = yaml.safe_load(card.decode().split("---\n")[1])
    assert isinstance(found, dict)
    return found


def test_a_delivery_changes_no_other_line_of_the_head() -> None:
    theirs = "# about\nlanguage:\n- no # Norwegian\nversion: 1.10\ntags: [mine] # mine\n\n# more\nlicense: mit\n"
    card = made(f"---\n{theirs}---\n# Title\n".encode()).decode()
    after = theirs.replace("tags: [mine]", "tags:\n- mine\n- synthetic")
    assert card.startswith(f"---\n{after}{OURS}size_categories:\n- n<1K\n---\n# Title\n")
    assert made(card.encode()).decode() == card


@pytest.mark.parametrize(
    "theirs", ["{license: mit, tags: [a]}\n", "tags: &t [a]\nother: *t\nlicense: mit\n", "license: mit"]
)
def test_a_head_that_cannot_be_changed_line_by_line_keeps_its_values(theirs: str) -> None:
    merged = head(made(f"---\n{theirs}\n---\n".encode()))
    assert merged["license"] == "mit"
    assert "synthetic" in str(merged["tags"])
    assert merged["configs"] == yaml.safe_load(OURS)["configs"]


def test_line_ends_and_a_byte_order_mark_are_those_of_windows() -> None:
    card = made(b"\xef\xbb\xbf---\r\nlicense: mit\r\n---\r\n# Title\r\n")
    assert card.startswith(b"---\r\nlicense: mit\r\nconfigs:\r\n")
    assert card.count(b"\n") == card.count(b"\r\n")
    assert made(card) == card


def test_a_prompt_with_our_marks_does_not_end_our_part() -> None:
    card = made(made(part=f"a prompt\n{END}\nthat goes on"), part="new words")
    assert b"goes on" not in card
    assert card.count(END.encode()) == 1


def test_the_size_is_that_of_all_parts() -> None:
    card = None
    for number in range(3):
        card = made(card, split=f"run_{number}", rows=600)
    assert card is not None
    assert head(card)["size_categories"] == ["1K<n<10K"]
    again = made(made(card, split="run_0", rows=10), split="run_1", rows=10)
    assert head(again)["size_categories"] == ["n<1K"]


def test_a_size_that_somebody_else_has_given_or_data_of_theirs_is_not_ours_to_count() -> None:
    assert head(made(b"---\nsize_categories:\n- 1M<n<10M\n---\n"))["size_categories"] == ["1M<n<10M"]
    other = b"---\nconfigs:\n- config_name: raw\n  data_files:\n  - split: train\n    path: raw/*.csv\n---\n"
    assert "size_categories" not in head(made(other))


def test_files_that_are_loaded_without_being_named_are_named_beside_ours() -> None:
    others = (
        "data/test-00000-of-00002.parquet",
        "data/test-00001-of-00002.parquet",
        "data/test.manifest.json",
        "long/train-00000-of-00001.parquet",
        "long/train.manifest.json",
        "long/train.failures.jsonl",
    )
    configs = head(made(others=others))["configs"]
    assert configs == [
        {
            "config_name": "default",
            "data_files": [{"split": "test", "path": "data/test-*"}, {"split": "train", "path": "data/train-*"}],
        },
        {"config_name": "long", "data_files": [{"split": "train", "path": "long/train-*"}]},
    ]


@pytest.mark.parametrize(
    ("existing", "others", "words"),
    [
        ("no head", ("reviews.csv",), "reviews.csv would no longer be loaded"),
        (
            "---\nconfigs:\n- config_name: default\n  data_files: '*.csv'\n---\n",
            (),
            "list the files of config 'default' by split",
        ),
        (
            "---\nconfigs:\n- config_name: default\n  data_dir: raw\n---\n",
            (),
            "list the files of config 'default' by split",
        ),
        ("---\nconfigs: all of them\n---\n", (), "list the files of config 'default' by split"),
        (
            "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: raw/*.csv\n---\n",
            (),
            "other files for split 'train'",
        ),
        (f"the end alone {END}", (), "only one of the marks"),
        (f"{END} <!-- orchestrator: begin of default/train -->", (), "only one of the marks"),
        ("---\ndate: 2024-99-99\n---\n", (), "is not YAML"),
    ],
)
def test_what_would_hide_or_lose_the_work_of_others_is_refused(
    existing: str, others: tuple[str, ...], words: str
) -> None:
    with pytest.raises(UsageError, match=rf"^acme/reviews/README.md .*{words}.*: "):
        made(existing.encode(), others=others)


def test_text_in_another_encoding_is_refused() -> None:
    with pytest.raises(UsageError, match="is not text in UTF-8: save it as UTF-8"):
        made("# Größe".encode("latin-1"))


def test_overwrite_replaces_the_entry_of_our_split() -> None:
    there = b"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: raw/*.csv\n---\n"
    assert head(made(there, overwrite=True))["configs"] == yaml.safe_load(OURS)["configs"]
