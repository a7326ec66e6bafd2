"""Our part of a dataset's card, in Markdown: how the rows were made, from the manifest of their delivery."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import TYPE_CHECKING

from orchestrator.domain.phrases import duration, money, visible, visible_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Manifest = Mapping[str, object]

_IDENTITY = {"endpoint": "kind", "model": "model", "revision": "revision", "task": "task", "address": "url"}
_SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M", 10_000_000: "1M<n<10M"}
_LARGER = {10**8: "10M<n<100M", 10**9: "100M<n<1B", 10**10: "1B<n<10B", 10**11: "10B<n<100B", 10**12: "100B<n<1T"}


def size_category(rows: int) -> str:
    """Return the Hub's name for a number of rows."""
    return next((name for limit, name in (_SIZES | _LARGER).items() if rows < limit), "n>1T")


def without_folders(manifest: Manifest) -> Manifest:
    """Return the manifest of a delivery that others can read: where files are on our machine is not their business."""
    read, identity = _table(manifest.get("input")), _table(manifest.get("endpoint"))
    shown = {"input": {**read, "source": _without_folder(read["source"])}} if "source" in read else {}
    command = identity.get("model")
    if isinstance(command, list):  # of a server without a named model
        shown["endpoint"] = {**identity, "model": [_without_folder(word) for word in command]}
    return {**manifest, **shown}


def _without_folder(text: object) -> object:
    return PurePath(text).name if isinstance(text, str) and text.startswith("/") else text


def card_part(manifest: Manifest, *, repo: str, config: str, split: str, path: str, sha256: str) -> str:
    """Return our part of the card. `path`, `sha256`: of the manifest in the repo."""
    maker = f"Orchestrator's job `{_text(manifest.get('job'))}` made the rows of this split."
    tables = [
        f"## {visible(split)}: answers of a model",
        f"{maker} Each `output` is what a model answered, and nobody has reviewed it.",
        _table_of(_figures(manifest, path, sha256)),
        *_prompt(manifest),
        *_causes(manifest),
        *(["### Use it", _code("python", _loading(repo, config, split))] if _has_rows(manifest) else []),
        "### Make it again",
        _recipe(manifest, path),
    ]
    return "\n\n".join(tables)


def _figures(manifest: Manifest, path: str, sha256: str) -> list[tuple[str, str]]:
    identity, read, counts = (_table(manifest.get(name)) for name in ("endpoint", "input", "counts"))
    rows = ", ".join(f"{_number(counts.get(state))} {state}" for state in ("completed", "discarded", "skipped"))
    figures = [
        *((name, _named(identity[key])) for name, key in _IDENTITY.items() if identity.get(key)),
        ("rows", f"{rows} of {_number(counts.get('inputs'))} inputs"),
        *_earlier(manifest),
        *_spent(manifest),
        (
            "input",
            f"{_part(read)}`{_text(read.get('source'))}`"
            + (f", SHA-256 `{read['sha256']}`" if read.get("sha256") else ""),
        ),
        ("run", f"{_text(manifest.get('run'))}, {_period(manifest)}"),
        ("manifest", f"[`{path}`]({path}), SHA-256 `{sha256}`"),
    ]
    return figures if manifest.get("finished", True) else [("state", "the run is not finished"), *figures]


def _named(value: object) -> str:
    """Return what the identity of an answer says, as text; a model in a folder has only a hash, a server a command."""
    sha256 = _table(value).get("sha256")
    value = " ".join(map(str, value)) if isinstance(value, list) else value
    return f"`{_text(value)}`" if sha256 is None else f"SHA-256 `{sha256}`"


def _part(read: Mapping[str, object]) -> str:
    return f"the first {_number(read['limit'])} rows of " if read.get("limit") else ""


def _has_rows(manifest: Manifest) -> bool:
    """Whether there are any: `load_dataset` fails on a split without rows."""
    return _table(manifest.get("counts")).get("completed") != 0 or "kept_from_run" in manifest


def _earlier(manifest: Manifest) -> list[tuple[str, str]]:
    figures, earlier = [], _table(manifest.get("earlier"))
    if "kept_from_run" in manifest:
        figures.append(("kept", f"this run completed nothing: the rows are those of run {manifest['kept_from_run']}"))
    if earlier:
        of = f"{_number(earlier.get('records'))} of run {earlier.get('run')}"
        figures.append(("earlier rows", f"{of}, in `{_text(earlier.get('file'))}`"))
    return figures


def _spent(manifest: Manifest) -> list[tuple[str, str]]:
    tokens, cost = _table(manifest.get("tokens")), _table(manifest.get("cost"))
    figures = []
    if tokens.get("in") is not None or tokens.get("out") is not None:
        figures.append(("tokens", f"{_number(tokens.get('in'))} in, {_number(tokens.get('out'))} out"))
    seconds, dollars = cost.get("seconds"), cost.get("dollars")
    if isinstance(seconds, int | float):
        spent = money(dollars if isinstance(dollars, int | float) else None)
        figures.append(("cost of this run", f"{spent} for {duration(seconds)} awake"))
    return figures


def _period(manifest: Manifest) -> str:
    begun, ended = manifest.get("started_at"), manifest.get("finished_at")
    return f"{begun} to {ended}" if ended else f"begun {begun}"


def _prompt(manifest: Manifest) -> list[str]:
    request = manifest.get("request")
    if request is None:
        return []
    if isinstance(request, str):
        written = "\n".join(map(visible, request.split("\n")))
    else:
        written = visible_json(json.dumps(request, ensure_ascii=False, indent=2))
    return [
        "### Prompt",
        "`{column}` stands for a row's value.",
        _code("text" if isinstance(request, str) else "json", written),
    ]


def _causes(manifest: Manifest) -> list[str]:
    causes = manifest.get("causes")
    if not isinstance(causes, list) or not causes:
        return []
    found = [(_text(_cause_name(_table(cause))), _number(_table(cause).get("items"))) for cause in causes]
    return ["### Discarded rows", _table_of(found, ("cause", "rows"))]


def _cause_name(cause: Mapping[str, object]) -> str:
    return f"{cause.get('kind')} {cause['status']}" if cause.get("status") else f"{cause.get('kind')}"


def _loading(repo: str, config: str, split: str) -> str:
    name = "" if config == "default" else f'"{config}", '
    return f'from datasets import load_dataset\n\nrows = load_dataset("{repo}", {name}split="{split}")'


def _recipe(manifest: Manifest, path: str) -> str:
    release = _text(_table(manifest.get("versions")).get("orchestrator"))
    return (
        f"Install `batch-inference-orchestrator` {release} and run the job with the same input, model and prompt. If "
        f"all of them are the same, so is `fingerprint` in [`{path}`]({path}); sampled answers may still differ. The "
        "manifest has the SHA-256 of every file, and how many rows each has."
    )


def _table_of(rows: Sequence[tuple[str, str]], head: tuple[str, str] = ("", "")) -> str:
    lines = [head, ("---", "---"), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _code(language: str, text: str) -> str:
    """Return a block of code, fenced so that no line of the text ends it."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text}\n{fence}"


def _table(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return visible(str(value)).replace("`", "'")


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "unknown"
