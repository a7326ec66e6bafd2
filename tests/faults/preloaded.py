"""A library between a process and the system, compiled from C: the only way to simulate a disk."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


def preloaded(folder: Path, name: str, source: str) -> dict[str, str]:
    """Return the environment of a process in which the functions of the library replace those of the system."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("only a library can stand in for a disk, and none can be made here: no C compiler, or no Linux")
    text, library = folder / f"{name}.c", folder / f"{name}.so"
    text.write_text(source)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, text, "-ldl", "-lpthread"], check=True)
    return {"LD_PRELOAD": str(library)}
