"""Where the packages that carry real weights lie. They are found, not imported: some import half the world."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


def folder_of(package: str) -> Path:
    """Skips the test where the package is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"the package {package} is not installed")
    return Path(spec.origin).parent
