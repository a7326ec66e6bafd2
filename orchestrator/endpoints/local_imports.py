"""The modules that a worker imports before it loads its model: where each is, and a fingerprint of its content."""

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
    """A module. `folder`: where the worker looks for `name`. `path`: its file, or the folder of a package."""

    name: str
    folder: Path
    path: Path

    @property
    def argument(self) -> str:
        """The module as an argument on the worker's command line."""
        return f"{self.name}={self.folder}"


def find_module(name: str) -> OwnModule:
    """Find a module by the path of its .py file, or by a name that this process could import. Does not import it.

    Raises `UsageError` if there is none.
    """
    if name.endswith(".py"):
        path = Path(name).expanduser().absolute()
        if not path.is_file() or not path.stem.isidentifier():
            raise UsageError(f"imports: {name!r} is not a file, or Python cannot import a file with that name")
        return OwnModule(path.stem, path.parent, path)
    top, *rest = name.split(".")
    spec = importlib.util.find_spec(top) if all(part.isidentifier() for part in (top, *rest)) else None
    if spec is None or spec.origin is None:
        raise UsageError(
            f"imports: no module {name!r} is installed or beside the job file; you can also give the path of a .py file"
        )
    origin = Path(spec.origin).absolute()
    path = origin.parent if spec.submodule_search_locations else origin
    folder = path.parent
    for part in rest:
        path /= part
    if not path.is_dir():
        path = path.with_suffix(".py")
    if not path.exists():
        raise UsageError(f"imports: there is no {path} for {name!r}")
    return OwnModule(name, folder, path)


def fingerprint(module: OwnModule, folders: Sequence[Path] = ()) -> str:
    """Return the SHA-256 of the source of a module, or of every .py file of a package, and of what they import in turn.

    `folders`: where the worker looks for imports. Files of installed packages do not count.
    """
    digest = hashlib.sha256()
    sources = [*_sources(module.path)]
    for path in sources:
        digest.update(f"{path.relative_to(module.folder).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    own = [folder for folder in dict.fromkeys([module.folder, *folders]) if not is_installed(folder)]
    if not is_installed(module.path) and (imported := digest_of(sources, own)):
        digest.update(imported.encode())
    return digest.hexdigest()


def _sources(path: Path) -> Iterator[Path]:
    yield from sorted(path.rglob("*.py")) if path.is_dir() else (path,)
