"""README.md of a dataset on the Hub: our part of it and of its YAML head; the rest stays as somebody wrote it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from orchestrator.domain.dataset_card import size_category
from orchestrator.domain.errors import UsageError

_HEAD = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class DataFiles:
    """The files of one split, for the head. `rows_before`: those of the delivery that these files replace."""

    config: str
    split: str
    pattern: str
    rows: int
    rows_before: int | None


def readme(existing: str | None, part: str, files: DataFiles, *, title: str, where: str) -> str:
    """Return the card with our part replaced, or added at its end. Raises `UsageError` if its head is not YAML."""
    text = "" if existing is None else existing
    found = _HEAD.match(text)
    head, body = ("", text) if found is None else (found[1], text[found.end() :])
    merged = _merged_head(head, files, where)
    start, end = (f"<!-- orchestrator: {word} of {files.config}/{files.split} -->" for word in ("begin", "end"))
    ours = f"{start}\n\n{part}\n\n{end}"
    before, begun, rest = body.partition(start)
    _, ended, after = rest.partition(end)
    if begun and not ended:
        raise UsageError(f"{where} has the mark {start} without {end}: restore it, or remove both")
    if not begun:
        before, after = (f"{body.rstrip()}\n\n" if body.strip() else f"\n# {title}\n\n"), "\n"
    return f"---\n{merged}---\n{before}{ours}{after}"


def _merged_head(head: str, files: DataFiles, where: str) -> str:
    """Return the YAML with what loads our files; it is the same text if that is in it already."""
    yaml = import_module("yaml")  # huggingface_hub needs it as well
    try:
        there = yaml.safe_load(head) or {}
    except yaml.YAMLError as failure:
        raise UsageError(f"{where} has a head that is not YAML: correct what is between the lines of ---") from failure
    if not isinstance(there, dict):
        raise UsageError(f"{where} has a head that is not a table: correct what is between the lines of ---")
    merged = {**there, "configs": _configs(there.get("configs"), files), "tags": _tags(there.get("tags"))}
    replaced = [None] if files.rows_before is None else [None, [size_category(files.rows_before)]]
    if there.get("size_categories") in replaced:
        merged["size_categories"] = [size_category(files.rows)]
    if merged == there:
        return head
    written: str = yaml.safe_dump(merged, sort_keys=False, allow_unicode=True, width=10_000)
    return written


def _tags(there: Any) -> list[Any]:
    tags = there if isinstance(there, list) else [] if there is None else [there]
    return tags if "synthetic" in tags else [*tags, "synthetic"]


def _configs(there: Any, files: DataFiles) -> list[Any]:
    configs = list(there) if isinstance(there, list) else []
    ours = {"split": files.split, "path": files.pattern}
    for number, config in enumerate(configs):
        if isinstance(config, dict) and config.get("config_name") == files.config:
            configs[number] = {**config, "data_files": _data_files(config.get("data_files"), ours)}
            return configs
    return [*configs, {"config_name": files.config, "data_files": [ours]}]


def _data_files(there: Any, ours: dict[str, str]) -> list[Any]:
    entries = list(there) if isinstance(there, list) else []
    for number, entry in enumerate(entries):
        if isinstance(entry, dict) and entry.get("split") == ours["split"]:
            if ours["path"] not in (
                entry.get("path"),
                *([*entry["path"]] if isinstance(entry.get("path"), list) else []),
            ):
                entries[number] = ours
            return entries
    return [*entries, ours]
