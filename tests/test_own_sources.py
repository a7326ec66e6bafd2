"""Modules that the user's code imports from beside it are found without running it."""

from __future__ import annotations

import ast
import gc
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import pytest

from orchestrator.own_sources import digest_of, imported

if TYPE_CHECKING:
    from collections.abc import Iterator


def laid_out(folder: Path, **files: str) -> Path:
    """Write files by path; each one would raise if it were executed."""
    for name, source in files.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source + "\nraise SystemExit('was run')\n")
    return folder


def found(folder: Path, source: str) -> set[str]:
    (folder / "main.py").write_text(source)
    return {str(path.relative_to(folder)) for path in imported([folder / "main.py"], [folder])}


FILES = {
    "helper": "import deeper",
    "deeper": "import helper  # a circle",
    "json": "",
    "pkg/__init__": "",
    "pkg/part": "from . import other",
    "pkg/other": "from ..helper import x",
    "pkg/sub/__init__": "",
    "pkg/sub/leaf": "from ..part import y",
    "names/module": "",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return laid_out(tmp_path, **FILES)


@pytest.mark.parametrize(
    ("source", "files"),
    [
        ("import os, json, numpy", set()),
        ("import helper", {"helper.py", "deeper.py"}),
        ("from helper import x", {"helper.py", "deeper.py"}),
        ("def f():\n    import deeper", {"helper.py", "deeper.py"}),
        ("import pkg", {"pkg/__init__.py"}),
        ("from pkg import part", {"pkg/__init__.py", "pkg/part.py", "pkg/other.py", "helper.py", "deeper.py"}),
        ("import names.module", {"names/module.py"}),
        ("import importlib; importlib.import_module('names.module')", {"names/module.py"}),
        ("this is no Python", set()),
    ],
)
def test_imported_modules_are_found(folder: Path, source: str, files: set[str]) -> None:
    assert found(folder, source) == files


def test_a_relative_import_in_a_package_is_found(folder: Path) -> None:
    assert {"pkg/sub/leaf.py", "pkg/part.py", "pkg/other.py"} <= found(folder, "import pkg.sub.leaf")


def test_the_digest_depends_on_the_content_and_not_the_location(folder: Path, tmp_path: Path) -> None:
    (folder / "main.py").write_text("import helper")
    moved = laid_out(tmp_path / "moved", **FILES)
    (moved / "main.py").write_text("import helper")
    before = digest_of([folder / "main.py"], [folder])
    assert digest_of([moved / "main.py"], [moved]) == before != ""
    (folder / "deeper.py").write_text("x = 2")
    assert digest_of([folder / "main.py"], [folder]) != before
    (folder / "main.py").write_text("import json, numpy")
    assert digest_of([folder / "main.py"], [folder]) == ""


class _Cycle:
    """Garbage whose end is Python code, so another thread may run in the middle of parsing."""

    def __init__(self) -> None:
        self.own = self

    def __del__(self) -> None:
        sum(range(200))


@pytest.fixture
def restless() -> Iterator[None]:
    """Let threads and the garbage collector come in between often."""
    interval, threshold = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-5)
    gc.set_threshold(50)
    yield
    sys.setswitchinterval(interval)
    gc.set_threshold(*threshold)


def look(_: int = 0) -> None:
    for _again in range(6):
        [_Cycle() for _ in range(50)]
        imported([Path(ast.__file__)], [])


@pytest.mark.usefixtures("restless")
def test_several_threads_may_look_for_imports_at_once() -> None:
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(look, range(3)))


@pytest.mark.usefixtures("restless")
def test_another_thread_may_parse_while_imports_are_looked_for() -> None:
    content, over = Path(ast.__file__).read_bytes(), Event()

    def parse() -> None:
        while not over.is_set():
            [_Cycle() for _ in range(50)]
            with suppress(SystemError):
                ast.parse(content)

    with ThreadPoolExecutor(1) as threads:
        threads.submit(parse)
        try:
            look()
        finally:
            over.set()
