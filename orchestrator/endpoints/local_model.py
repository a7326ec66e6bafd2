"""The model of a local endpoint: where it is on this machine, and a fingerprint of its content."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.domain.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HANDLER = "handler.py"
_DEPTH = 3  # levels of folders below a package's own that are searched for a model
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_WHOLE = 1 << 24  # bytes; a larger file is only sampled for its fingerprint
_SAMPLE = 1 << 20
_SAMPLES = 16


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model. `source`: what transformers loads. `folder`: None for an id on the Hub.

    `has_handler`: the model is served by its own `EndpointHandler`, as in the Hugging Face toolkit.
    """

    name: str
    source: str
    folder: Path | None
    has_handler: bool = False


def find_model(model: str) -> LocalModel:
    """Find a model by folder, `package:NAME`, the name of an installed package that contains it, or its id on the Hub.

    Raises `UsageError` if there is no such folder or package, or the id is not valid. Does not import packages.
    """
    kind, _, package = model.rpartition(":")
    if kind == "package":
        folder = _in_package(package)
        if folder is None:
            raise UsageError(
                f"model {model!r}: no package {package!r} is installed; install it with pip, or give a folder"
            )
        return LocalModel(package, str(folder), folder)
    folder = Path(model).expanduser()
    if folder.is_dir():
        folder = folder.absolute()
        if not any((folder / name).is_file() for name in ("config.json", HANDLER)):
            raise UsageError(f"model {model!r}: there is no config.json in this folder, and no {HANDLER}")
        return LocalModel(folder.name, str(folder), folder, (folder / HANDLER).is_file())
    if not _HUB_ID.fullmatch(model) or model.startswith("."):
        raise UsageError(f"model {model!r}: no such folder, and the id of a model on the Hub looks like owner/name")
    if "/" not in model and (packaged := _in_package(model)):
        return LocalModel(model, str(packaged), packaged)
    return LocalModel(model, model, None)


def _in_package(name: str) -> Path | None:
    """Return the model's folder inside an installed package, or None if there is no such package."""
    module = name.replace("-", "_")
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    if spec is None:
        return None
    roots = [Path(root) for root in spec.submodule_search_locations or ()]
    folders = [folder for root in roots for folder in _model_folders(root)]
    if len(folders) != 1:
        listed = ", ".join(map(str, folders)) or "none"
        raise UsageError(f"package {name!r}: expected one folder with a config.json and weights, found {listed}")
    return folders[0]


def _model_folders(root: Path) -> Iterator[Path]:
    for depth in range(_DEPTH + 1):
        for config in sorted(root.glob("*/" * depth + "config.json")):
            if any(next(config.parent.glob(weights), None) for weights in _WEIGHTS):
                yield config.parent


def fingerprint(model: LocalModel, revision: str | None) -> Mapping[str, object]:
    """Identify the model independently of its path: by the Hub's id and revision, or by the SHA-256 of its files.

    Files up to 16 MB count in full; larger ones by their size and 16 evenly spaced megabytes. Reads the files.
    """
    if model.folder is None:
        return {"id": model.source, "revision": revision}
    digest = hashlib.sha256()
    for path in sorted(_files(model.folder)):
        digest.update(f"{path.relative_to(model.folder).as_posix()}\0{path.stat().st_size}\0".encode())
        digest.update(_content(path))
    return {"sha256": digest.hexdigest()}


def content_of(model: str) -> object:
    """Return the hash of a folder or a file of weights, as in `fingerprint`, or any other name unchanged."""
    path = Path(model).expanduser()
    if path.is_dir():
        return fingerprint(LocalModel(path.name, str(path), path), None)
    if path.is_file():
        return {"sha256": hashlib.sha256(b"%d\0" % path.stat().st_size + _content(path)).hexdigest()}
    return model


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith((".", "__pycache__"))]
        yield from (Path(root, name) for name in names if not name.startswith(".") and not name.endswith(".md"))


def _content(path: Path) -> bytes:
    digest, size = hashlib.sha256(), path.stat().st_size
    with path.open("rb") as file:
        if size <= _WHOLE:
            return hashlib.file_digest(file, "sha256").digest()
        for sample in range(_SAMPLES):
            file.seek((size - _SAMPLE) * sample // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE))
    return digest.digest()
