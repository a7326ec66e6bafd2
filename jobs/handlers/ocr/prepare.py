"""Print an invoice, a letter and an empty page into data/scans, for jobs/read_scans.py."""

from __future__ import annotations

import ctypes.util
import sys
from pathlib import Path

TARGET = Path("data/scans")
PAGES = {
    "invoice.png": ("Invoice 2041: total 318.50 EUR", "Due on 30 November 2026"),
    "letter.png": ("Dear Ms. Moreau,", "your parcel was sent on Monday", "and should be there by Friday."),
    "empty.png": (),
}


def main() -> None:
    """Write the pages anew, and say what the handler would lack."""
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError:
        raise SystemExit("pages are printed with pillow: pip install 'batch-inference-orchestrator[local]'") from None
    TARGET.mkdir(parents=True, exist_ok=True)
    for name, lines in PAGES.items():
        page = Image.new("RGB", (900, 736), "white")
        for number, line in enumerate(lines):
            ImageDraw.Draw(page).text((60, 80 + 90 * number), line, "black", ImageFont.load_default(40))
        page.save(TARGET / name)
    print(f"{TARGET}: {', '.join(PAGES)}")
    if sys.version_info >= (3, 13):
        print("rapidocr-onnxruntime, which the handler runs on, is there for Python up to 3.12 only")
    if sys.platform == "linux" and ctypes.util.find_library("GL") is None:
        print("opencv-python, which the handler runs on, wants libGL.so.1: apt-get install libgl1")


if __name__ == "__main__":
    main()
