"""README.md of a dataset on the Hub: our part of it and of its YAML head; the rest stays as somebody wrote it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from orchestrator.domain.dataset_card import size_category
from orchestrator.domain.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_HEAD = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_MARK = "<!-- orchestrator:"
_ROWS = re.compile(r"^<!-- orchestrator: begin of (\S+) -->\n<!-- orchestrator: rows: (\d+) -->$", re.MULTILINE)
_SHARD = re.compile(r"([^/]+)/(\w+(?:\.\w+)*)-\d{5,}-of-\d{5,}\.\w+")  # as `push_to_hub` and we name files
_BESIDE = re.compile(r"\.(manifest\.json|failures\.jsonl)$")  # what our deliveries write beside them
_DATA = re.compile(r"(?<!dataset_infos)\.(parquet|csv|tsv|jsonl?|arrow)(\.\w+)?$")


@dataclass(frozen=True, slots=True)
class DataFiles:
    """The files of one split, for the head.

    `others`: the paths of all other files in the repo. `overwrite`: the head may name ours instead of others.
    """

    config: str
    split: str
    pattern: str
    rows: int
    others: Sequence[str] = ()
    overwrite: bool = False


def readme(existing: bytes | None, part: str, files: DataFiles, *, title: str, where: str) -> bytes:
    """Return the card with our part replaced, or added at its end. Nothing else changes, not even a comment.

    Raises `UsageError` if we cannot tell what is whose, or if files of others would no longer be loaded.
    """
    text = _decoded(existing or b"", where)
    has_crlf = 0 < text.count("\n") == text.count("\r\n")
    text = text.replace("\r\n", "\n") if has_crlf else text
    found = _HEAD.match(text)
    head, body = ("", text) if found is None else (found[1], text[found.end() :])
    start, end = (f"<!-- orchestrator: {word} of {files.config}/{files.split} -->" for word in ("begin", "end"))
    before, begun, rest = body.partition(start)
    _, ended, after = rest.partition(end)
    if bool(begun) is not bool(ended) or (end in before):
        raise UsageError(f"{where} has only one of the marks {start} and {end}, or in the wrong order: restore both")
    if not begun:
        before, after = (f"{body.rstrip()}\n\n" if body.strip() else f"\n# {title}\n\n"), "\n"
    merged = _merged_head(head, files, _Parts.of(body, files), where)
    ours = (
        f"{start}\n<!-- orchestrator: rows: {files.rows} -->\n\n{part.replace(_MARK, '<! -- orchestrator:')}\n\n{end}"
    )
    card = f"---\n{merged}---\n{before}{ours}{after}"
    return (card.replace("\n", "\r\n") if has_crlf else card).encode()


@dataclass(frozen=True, slots=True)
class _Parts:
    """How many parts of ours the card has, and of how many rows, before and after a delivery."""

    number: int
    rows_before: int
    rows: int

    @classmethod
    def of(cls, body: str, files: DataFiles) -> _Parts:
        there = {name: int(rows) for name, rows in _ROWS.findall(body)}
        after = there | {f"{files.config}/{files.split}": files.rows}
        return cls(len(after), sum(there.values()), sum(after.values()))


def _decoded(existing: bytes, where: str) -> str:
    try:
        return existing.decode("utf-8-sig")
    except UnicodeDecodeError as failure:
        raise UsageError(f"{where} is not text in UTF-8: save it as UTF-8") from failure


def _merged_head(head: str, files: DataFiles, parts: _Parts, where: str) -> str:
    """Return the YAML with what loads our files; it is the same text if that is in it already."""
    there = _table(head, where)
    configs = _listed(files.others, where) if there.get("configs") is None else there["configs"]
    wanted: dict[str, Any] = {"configs": _configs(configs, files, where), "tags": _tags(there.get("tags"))}
    splits = sum(len(one.get("data_files") or "-") for one in wanted["configs"])
    if splits == parts.number and there.get("size_categories") in (None, [size_category(parts.rows_before)]):
        wanted["size_categories"] = [size_category(parts.rows)]
    for key, value in wanted.items():
        if there.get(key) != value:
            head = _with(head, key, value, where)
    return head


def _table(head: str, where: str) -> dict[str, Any]:
    yaml = import_module("yaml")  # huggingface_hub needs it as well
    try:
        there = yaml.safe_load(head) or {}
    except (yaml.YAMLError, ValueError) as failure:
        raise UsageError(f"{where} has a head that is not YAML: correct what is between the lines of ---") from failure
    if not isinstance(there, dict):
        raise UsageError(f"{where} has a head that is not a table: correct what is between the lines of ---")
    return there


def _with(head: str, key: str, value: object, where: str) -> str:
    """Return the head with another value of this key. Its other lines stay as they are, if that is possible."""
    yaml = import_module("yaml")
    written = _dumped({key: value})
    wanted = {**_table(head, where), key: value}
    root = yaml.compose(head, yaml.SafeLoader)
    pairs = [] if root is None else [pair for pair in root.value if pair[0].value == key]
    if pairs:
        changed = head[: pairs[0][0].start_mark.index] + written.rstrip("\n") + head[_end(pairs[0][1]) :]
    else:
        changed = head + ("\n" if head and not head.endswith("\n") else "") + written
    try:
        return changed if yaml.safe_load(changed) == wanted else _dumped(wanted)
    except yaml.YAMLError:  # the head is on one line, or has anchors
        return _dumped(wanted)


def _dumped(table: Mapping[str, object]) -> str:
    written: str = import_module("yaml").safe_dump(table, sort_keys=False, allow_unicode=True, width=10_000)
    return written


def _end(node: Any) -> int:
    """Return where the text of a node ends, without the comments and empty lines behind it."""
    if node.id == "scalar" or node.flow_style or not node.value:
        return int(node.end_mark.index)
    last = node.value[-1]
    return _end(last[1] if node.id == "mapping" else last)


def _listed(others: Sequence[str], where: str) -> list[Any]:
    """Return the configs of files that are loaded without being named, because naming only ours would hide them."""
    configs: dict[str, list[dict[str, str]]] = {}
    for path in others:
        found = _SHARD.fullmatch(path)
        if found is not None and (found[1] == "data" or f"{found[1]}/{found[2]}.manifest.json" in others):
            entry = {"split": found[2], "path": f"{found[1]}/{found[2]}-*"}
            entries = configs.setdefault("default" if found[1] == "data" else found[1], [])
            entries += [] if entry in entries else [entry]
    unnamed = [path for path in others if not _BESIDE.search(path) and not _SHARD.fullmatch(path)]
    hidden = list(filter(_DATA.search, unnamed))
    if hidden and not configs:
        raise UsageError(
            f"{where} names no configs, so {hidden[0]} would no longer be loaded: name the files that are there under "
            "`configs`, or choose another dataset"
        )
    return [{"config_name": name, "data_files": entries} for name, entries in configs.items()]


def _tags(there: Any) -> list[Any]:
    tags = there if isinstance(there, list) else [] if there is None else [there]
    return tags if "synthetic" in tags else [*tags, "synthetic"]


def _configs(there: Any, files: DataFiles, where: str) -> list[Any]:
    """Return the configs with our entry. Raises `UsageError` if they say something else of our split."""
    listed = _is_list_of_tables(there)
    number = (
        next((at for at, one in enumerate(there) if one.get("config_name") == files.config), None) if listed else None
    )
    config: dict[str, Any] = {"config_name": files.config} if number is None else there[number]
    entries: Any = config.get("data_files") if config.keys() & {"data_files", "data_dir"} else []
    ours = {"split": files.split, "path": files.pattern}
    if not listed or not _is_list_of_tables(entries):
        raise UsageError(
            f"{where} does not list the files of config {files.config!r} by split: write its data_files as a list of "
            "split and path, or choose another config"
        )
    same = [one for one in entries if one.get("split") == files.split]
    if same and not files.overwrite and files.pattern not in _paths(same[0]):
        raise UsageError(
            f"{where} names other files for split {files.split!r} of config {files.config!r}: choose another split, or "
            "replace it with `--overwrite` or `overwrite=True` in the sink"
        )
    if not same or files.pattern not in _paths(same[0]):
        kept = [one for one in entries if one not in same]
        config = {**config, "data_files": [*kept, ours]}
    return [*there, config] if number is None else [*there[:number], config, *there[number + 1 :]]


def _is_list_of_tables(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def _paths(entry: Mapping[str, Any]) -> list[Any]:
    path = entry.get("path")
    return path if isinstance(path, list) else [path]
