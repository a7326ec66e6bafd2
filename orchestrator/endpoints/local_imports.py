"""The modules that a worker imports before it makes its model: where each lies, and what it is by content."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.domain.errors import UsageError
from orchestrator.own_sources import digest_of, is_installed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, slots=True)
class OwnModule:
    """`folder`: where the worker looks for `name`. `path`: its file, or the folder of a package."""

    name: str
    folder: Path
    path: Path

    @property
    def argument(self) -> str:
        """For the worker's command line."""
        return f"{self.name}={self.folder}"


def find_module(given: str) -> OwnModule:
    """A path to a .py file, or the name of a module that this process could import. It is looked at, not imported.

    `UsageError` where there is none.
    """
    if given.endswith(".py"):
        path = Path(given).expanduser().absolute()
        if not path.is_file() or not path.stem.isidentifier():
            raise UsageError(f"imports: {given!r} is no file, or its name is none that Python can import")
        return OwnModule(path.stem, path.parent, path)
    top, *rest = given.split(".")
    spec = importlib.util.find_spec(top) if all(part.isidentifier() for part in (top, *rest)) else None
    if spec is None or spec.origin is None:
        raise UsageError(
            f"imports: no module {given!r} is installed or beside the job file; a path to a .py file will do, too"
        )
    origin = Path(spec.origin).absolute()
    path = origin.parent if spec.submodule_search_locations else origin
    folder = path.parent
    for part in rest:
        path /= part
    if not path.is_dir():
        path = path.with_suffix(".py")
    if not path.exists():
        raise UsageError(f"imports: there is no {path} for {given!r}")
    return OwnModule(given, folder, path)


def fingerprint(module: OwnModule, folders: Sequence[Path] = ()) -> str:
    """SHA-256 over the source: of a file, or of every .py file of a package; and over what that imports in turn.

    `folders`: where the worker looks for what its modules import. What came with an installed package does not count.
    """
    digest = hashlib.sha256()
    sources = [*_sources(module.path)]
    for path in sources:
        digest.update(f"{path.relative_to(module.folder).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    own = [folder for folder in dict.fromkeys([module.folder, *folders]) if not is_installed(folder)]
    if not is_installed(module.path) and (beside := digest_of(sources, own)):
        digest.update(beside.encode())
    return digest.hexdigest()


def _sources(path: Path) -> Iterator[Path]:
    yield from sorted(path.rglob("*.py")) if path.is_dir() else (path,)
