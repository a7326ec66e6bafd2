"""Files that come with a request from another machine: on disk, under their own names, until it is answered."""

from __future__ import annotations

import base64
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class SentFiles:
    """The files of one request: `{"inputs": [... {"$file": path, "sha256": ...} ...], "files": {sha256: base64}}`.

    They are gone when the block ends.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._paths: dict[tuple[str, str], str] = {}

    def placed(self, inputs: Sequence[object], contents: Mapping[str, str]) -> Sequence[object]:
        """Return the inputs with the paths that the files have here. Without `contents`, they are here already."""
        return [self._placed(value, contents) for value in inputs] if contents else inputs

    def _placed(self, value: object, contents: Mapping[str, str]) -> object:
        if isinstance(value, list):
            return [self._placed(part, contents) for part in value]
        if not isinstance(value, dict):
            return value
        if "$file" in value and (content := contents.get(str(value.get("sha256")))) is not None:
            return {**value, "$file": self._path(PurePosixPath(str(value["$file"])).name, content)}
        return {key: self._placed(part, contents) for key, part in value.items()}

    def _path(self, name: str, content: str) -> str:
        """Write the file, in a folder of its own, unless it is there."""
        if (name, content) not in self._paths:
            self._folder = self._folder or Path(tempfile.mkdtemp(prefix="orchestrator-files-"))
            path = self._folder / str(len(self._paths)) / name
            path.parent.mkdir()
            path.write_bytes(base64.b64decode(content))
            self._paths[name, content] = str(path)
        return self._paths[name, content]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
