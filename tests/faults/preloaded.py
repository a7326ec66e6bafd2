"""A library that stands between a process and the system, made from C: the only thing that can stand in for a disk."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


def preloaded(folder: Path, name: str, source: str) -> dict[str, str]:
    """What a process's environment needs so that the library's functions are called in place of the system's."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("only a library can stand in for a disk, and none can be made here: no C compiler, or no Linux")
    text, library = folder / f"{name}.c", folder / f"{name}.so"
    text.write_text(source)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, text, "-ldl", "-lpthread"], check=True)
    return {"LD_PRELOAD": str(library)}
