"""Names that are imported on first use."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "package", [f"orchestrator{part}" for part in ("", ".app", ".endpoints", ".hooks", ".sinks", ".sources", ".wires")]
)
def test_all_names_of_a_package_are_listed_before_they_are_used(package: str) -> None:
    code = f"import {package} as package; assert set(package.__all__) <= set(dir(package))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_package_and_the_python_api_loads_no_large_library() -> None:
    code = (
        "import sys; from orchestrator import Job, run; print({'torch', 'transformers', 'IPython'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout == "set()\n"
