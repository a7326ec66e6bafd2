"""Our part of a dataset's card: sizes, and text of others that must not break the page."""

from __future__ import annotations

import pytest

from orchestrator.domain.dataset_card import card_part, size_category, without_folders


def part(**manifest: object) -> str:
    return card_part(manifest, repo="acme/x", config="default", split="train", path="data/m.json", sha256="0")


@pytest.mark.parametrize(
    ("rows", "name"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (5 * 10**6, "1M<n<10M"), (10**9, "1B<n<10B"), (10**12, "n>1T")],
)
def test_sizes_have_the_names_of_the_hub(rows: int, name: str) -> None:
    assert size_category(rows) == name


def test_a_prompt_with_fences_does_not_end_its_block() -> None:
    text = part(request="Answer in ```json\n{text}\n```")
    assert "````text\nAnswer in ```json\n{text}\n```\n````" in text


def test_text_of_others_does_not_break_a_table() -> None:
    text = part(causes=[{"kind": "odd|kind`\n", "items": 2}], endpoint={"model": "a|b`c\nd"})
    assert "| odd\\|kind'\\n | 2 |" in text
    assert "`a\\|b'c\\nd`" in text


def test_what_is_not_known_is_left_out() -> None:
    text = part(tokens={"in": None, "out": None}, cost=None, finished=False)
    assert "tokens" not in text
    assert "cost" not in text
    assert "the run is not finished" in text


def test_a_config_is_named_where_rows_are_loaded() -> None:
    text = card_part({}, repo="acme/x", config="long", split="test", path="m", sha256="0")
    assert 'load_dataset("acme/x", "long", split="test")' in text


@pytest.mark.parametrize(
    ("source", "shown"),
    [("/home/me/in.csv", "in.csv"), ("s3://bucket/in.csv", "s3://bucket/in.csv"), ("a generator", "a generator")],
)
def test_folders_of_this_machine_are_not_shown(source: str, shown: str) -> None:
    manifest = without_folders({"input": {"source": source, "sha256": "0"}})
    assert manifest["input"] == {"source": shown, "sha256": "0"}


def test_a_server_without_a_named_model_is_shown_as_its_command_without_folders() -> None:
    manifest = without_folders({"endpoint": {"kind": "local_server", "model": ["/home/me/bin/serve", "--port", "80"]}})
    assert manifest["endpoint"] == {"kind": "local_server", "model": ["serve", "--port", "80"]}
    assert "| model | `serve --port 80` |" in part(**manifest)


def test_a_model_from_a_folder_has_a_hash() -> None:
    text = part(endpoint={"kind": "local", "model": {"sha256": "abc"}})
    assert "| model | SHA-256 `abc` |" in text


def test_a_part_of_the_input_is_said_to_be_one() -> None:
    text = part(input={"source": "in.csv", "sha256": "0", "limit": 1000})
    assert "| input | the first 1,000 rows of `in.csv`, SHA-256 `0` |" in text
