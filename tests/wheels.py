"""The wheel of this checkout, and an environment that has it installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
PARTS = ("orchestrator", "migrations", "pyproject.toml", "README.md", "LICENSE")


def build(folder: Path) -> Path:
    """Build from a copy, so that no build files stay in this tree."""
    checkout = folder / "checkout"
    checkout.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, checkout / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, checkout)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(checkout)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path) -> Path:
    """Install the wheel into a new environment, on top of the packages of this one. Return its Python."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    subprocess.run([*pip, "install", "--quiet", "--no-index", "--no-deps", str(wheel)], check=True)
    ours = [path for path in sys.path if Path(path).name == "site-packages"]
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in ours))
    return python
