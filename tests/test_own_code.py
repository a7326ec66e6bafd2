"""The fingerprint of a function follows the code it refers to in its own file and beside it, and nothing else."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest

from orchestrator.job import fingerprint_of
from orchestrator.own_code import own_code
from orchestrator.user_file import execute

if TYPE_CHECKING:
    from pathlib import Path

JOB = """
import re
import json
import own_helper
from own_helper import clean as polish

LIMIT = 5
WORDS = re.compile("a+")
OTHER = 1

def shorten(text):
    return text[:LIMIT]

def unused(text):
    return text

class Reader:
    def read(self, text):
        return WORDS.sub("", text)

def plain(answer):
    return json.dumps(answer)

def parse(answer):
    return shorten(Reader().read(answer))

def helped(answer):
    return own_helper.clean(answer)

def polished(answer):
    return polish(answer)

def late(answer):
    import own_late
    return own_late.clean(answer)

def made():
    inner = shorten
    return lambda answer: inner(answer)

closed = made()

class Callable:
    def __call__(self, answer):
        return shorten(answer)

called = Callable()
"""
HELPER = "import own_deeper\ndef clean(text): return own_deeper.strip(text)\n"
DEEPER = "def strip(text): return text.strip()\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_helper.py").write_text(HELPER)
    (tmp_path / "own_deeper.py").write_text(DEEPER)
    return tmp_path


def fingerprint(folder: Path, name: str, source: str = JOB) -> str:
    for module in ("own_helper", "own_deeper"):
        sys.modules.pop(module, None)
    path = folder / f"job_{len(list(folder.iterdir()))}.py"  # inspect caches the lines of files
    path.write_text(source)
    return fingerprint_of(getattr(execute(path, path.stem), name))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("parse", "text[:LIMIT]", "text[-LIMIT:]"),
        ("parse", "LIMIT = 5", "LIMIT = 6"),
        ("parse", '"a+"', '"b+"'),
        ("parse", 'WORDS.sub("", text)', 'WORDS.sub("-", text)'),
        ("closed", "text[:LIMIT]", "text[-LIMIT:]"),
        ("called", "text[:LIMIT]", "text[-LIMIT:]"),
        ("called", "return shorten(answer)\n\ncalled", "return answer\n\ncalled"),
    ],
)
def test_the_fingerprint_changes_with_referenced_code(folder: Path, name: str, old: str, new: str) -> None:
    assert old in JOB
    assert fingerprint(folder, name) != fingerprint(folder, name, JOB.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"), [("OTHER = 1", "OTHER = 2"), ("return text\n", "return text + ''\n"), ("", "")]
)
def test_the_fingerprint_ignores_unreferenced_code(folder: Path, old: str, new: str) -> None:
    assert fingerprint(folder, "parse") == fingerprint(folder, "parse", JOB.replace(old, new))


@pytest.mark.parametrize("name", ["helped", "polished"])
@pytest.mark.parametrize("file", ["own_helper.py", "own_deeper.py"])
def test_the_fingerprint_changes_with_imported_neighbouring_files(folder: Path, name: str, file: str) -> None:
    before = fingerprint(folder, name)
    (folder / file).write_text((folder / file).read_text() + "# mended\n")
    assert fingerprint(folder, name) != before


def test_the_fingerprint_changes_with_a_file_imported_inside_the_function(folder: Path) -> None:
    (folder / "own_late.py").write_text("def clean(text): return text")
    before = fingerprint(folder, "late")
    (folder / "own_late.py").write_text("def clean(text): return text + '!'")
    assert fingerprint(folder, "late") != before


def test_a_function_that_refers_to_no_own_code_keeps_its_fingerprint(folder: Path) -> None:
    path = folder / "job.py"
    path.write_text(JOB)
    module = execute(path, "job_plain")
    assert own_code(module.plain) == []
    assert own_code(len) == own_code(str.upper) == own_code(pytest.raises) == []


def test_arguments_of_a_partial_count() -> None:
    made = [own_code(partial(len, *bound)) for bound in (([1],), ([2],), ([2],))]
    assert made[0] != made[1] == made[2]
    assert own_code(partial(sorted, key=None, reverse=True)) != own_code(partial(sorted, key=None, reverse=False))
