"""The packages a handler needs: what its files import, what its requirements.txt names, what is missing."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

REQUIREMENTS = "requirements.txt"

# the packages of the toolkit's own image: its setup.py, with the extras `st`, `diffusers` and `torch`
_IN_THE_IMAGE = frozenset(
    {
        "accelerate",
        "diffusers",
        "huggingface-hub",
        "librosa",
        "numpy",
        "orjson",
        "pandas",
        "peft",
        "phonemizer",
        "pillow",
        "protobuf",
        "pyctcdecode",
        "pyyaml",
        "requests",
        "safetensors",
        "scikit-learn",
        "scipy",
        "sentence-transformers",
        "sentencepiece",
        "soundfile",
        "starlette",
        "tokenizers",
        "torch",
        "torchaudio",
        "torchvision",
        "tqdm",
        "transformers",
        "uvicorn",
    }
)
_LOCAL_EXTRA = frozenset({"torch", "transformers", "PIL", "numpy"})
_NAME = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)")


def missing_package(error: ImportError, folder: Path) -> str | None:
    """Return the remedy for an import that failed because a package is missing, or None for any other reason."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    module = error.name.partition(".")[0]
    if error.name != module or (folder / f"{module}.py").exists() or (folder / module).is_dir():
        return None  # the package is installed but lacks this part
    if module in _LOCAL_EXTRA:
        return (
            f"the handler needs {module!r}, which is not installed: pip install 'batch-inference-orchestrator[local]'"
        )
    if named(module, required(folder)):
        todo = ""
    elif (folder / REQUIREMENTS).is_file():
        todo = f"name it in {REQUIREMENTS} (which does not, unless by another name), and "
    else:
        todo = f"name it in a {REQUIREMENTS} beside the handler, and "
    return (
        f"the handler needs the package {module!r}, which is not installed: {todo}set install_requirements=True in "
        f"LocalEndpoint (--install-requirements), which installs {REQUIREMENTS} into an environment of its own"
    )


def required(folder: Path) -> frozenset[str]:
    """Return the packages that requirements.txt names, in lower case with dashes."""
    try:
        lines = (folder / REQUIREMENTS).read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    found = (_NAME.match(line) for line in lines)
    return frozenset(_canonical(match[1]) for match in found if match)


def imported(folder: Path) -> dict[str, str]:
    """Return modules that are neither Python's nor the handler's, each with a place that imports it. Runs nothing."""
    own = {path.stem for path in folder.glob("*.py")} | {path.name for path in folder.iterdir() if path.is_dir()}
    found: dict[str, str] = {}
    for path in sorted(folder.glob("*.py")):
        for name, line in _imports(ast.parse(path.read_bytes())):
            if name not in own and name not in sys.stdlib_module_names:
                found.setdefault(name, f"{path.name}, line {line}")
    return found


def absent_there(folder: Path) -> dict[str, str]:
    """Return modules that neither requirements.txt nor Hugging Face's image provides, each with an importing place."""
    given = required(folder) | _IN_THE_IMAGE
    return {module: place for module, place in imported(folder).items() if not named(module, given)}


def named(module: str, packages: Iterable[str]) -> bool:
    """Whether one of these packages provides the module, by its name or, if it is installed, by its contents."""
    names = {_canonical(module), *map(_canonical, packages_distributions().get(module, ()))}
    return not names.isdisjoint(packages)


def _imports(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0], node.lineno


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
