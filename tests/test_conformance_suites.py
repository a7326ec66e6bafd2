"""Third-party kinds in their own project: correct ones pass the suites, broken ones fail at their fault."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SINK = {
    "sink.py": """
from orchestrator.sinks import JsonlSink

class MySink(JsonlSink):
    __slots__ = ()
""",
    "test_sink.py": """
import json
from orchestrator.testing import SinkConformance
from sink import MySink

class TestMySink(SinkConformance):
    def sink(self, path, keep):
        return MySink(path, keep)
    def read(self, path):
        return [json.loads(line) for line in path.read_bytes().splitlines()]
""",
}
ENDPOINT = {
    "endpoint.py": """
from orchestrator.domain.errors import EndpointSilent
from orchestrator.domain.terms import Terms
from tests.engine.scripted import Scripted, _Control, _Data

class MyEndpoint(Scripted):
    def control(self):
        return opened(MyControl(self))

class MyControl(_Control):
    async def pause(self, *, to_zero=False):
        await super().pause(to_zero=to_zero)
    def connect(self, policy):
        return opened(MyData(self._endpoint))

class MyData(_Data):
    async def ask(self, requests, again=None):
        return await super().ask(requests, again)

class opened:
    def __init__(self, value):
        self.value = value
    async def __aenter__(self):
        return self.value
    async def __aexit__(self, *_):
        pass

def made():
    return MyEndpoint(terms=Terms("scripted", {"kind": "mine"}, pause_deadline=0.2), batch_size=2)
""",
    "test_endpoint.py": """
from contextlib import asynccontextmanager
from orchestrator.testing import BilledEndpointConformance
from endpoint import made

class TestMyEndpoint(BilledEndpointConformance):
    requests, answers, refused, secrets = ["a", "b"], ["A", "B"], "poison", ["s3cret"]
    deadline = 10.0
    @asynccontextmanager
    async def serving(self):
        self.endpoint = made()
        yield self.endpoint
    def revive(self, pause_with):
        return self.endpoint
""",
}


def blocks(heading: str) -> dict[str, str]:
    """Return the files in a section of CONTRIBUTING.md: each code block begins with its name."""
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = guide.split(f"## {heading}\n")[1].split("\n## ")[0]
    return dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", section, re.DOTALL))


KINDS = {"source": blocks("Add a source"), "wire": blocks("Add a wire"), "sink": SINK, "endpoint": ENDPOINT}
FAULTS = [
    ("source", "archive.namelist())", "archive.namelist()[::-1])", "rows_in_order_and_word_for_word"),
    ("source", "id=name) for", "id='x') for", "ids_are_distinct"),
    ("source", "(OSError, BadZipFile)", "BadZipFile", "missing_file_is_named"),
    ("source", "path.resolve() == self.path.resolve()", "path == self.path", "says_which_files_it_reads"),
    ("source", "self.path.open(", "open('/dev/null', ", "its_hash_is_none_or_that_of_its_content"),
    ("source", "        with archive:\n", "        for archive in [KEPT.append(archive) or archive]:\n", "is_closed"),
    ("wire", 'raise bad("the answer has no response")', "return [None]", "what_is_no_answer"),
    ("wire", "decoded(content)", "__import__('json').loads(content)", "cut_is_no_answer"),
    ("wire", 'joined(base, "api/generate")', 'base / "api/generate"', "url_that_is_whole"),
    ("wire", "if not isinstance(prompt, str)", "if prompt == 1", "cannot_carry_is_rejected"),
    ("wire", "return [text]", "return [text.strip('A')]", "honest_server_gives_the_right_answers"),
    ("wire", "return [text]", "return [text] * 2", "one_entry_per_request"),
    ("sink", "__slots__ = ()", "def check(self, job, *, replaces=True): ...", "another_job_has_written"),
    ("sink", "__slots__ = ()", "def writes(self, runs=()): return (self.path,)", "names_every_file"),
    ("sink", "__slots__ = ()", "def for_run(self, names): return self", "placeholders_are_filled_in"),
    ("endpoint", "await super().pause", "self._endpoint.calls.remove('resume')", "pause_before_any_resume"),
    ("endpoint", "await super().pause(to_zero=to_zero)", "raise EndpointSilent", "paused_until_it_sleeps"),
    ("endpoint", 'Terms("scripted"', 'Terms("another"', "enough_to_pause_it"),
    ("endpoint", '{"kind": "mine"}', '{"kind": "mine", "token": "s3cret"}', "enough_to_pause_it"),
    ("endpoint", "await super().ask(requests, again)", "['A', 'A'][:len(requests)]", "their_own_answers"),
    ("endpoint", "await super().ask(requests, again)", "await super().ask(requests[:1])", "one_entry_for_each"),
]


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Run every kind, correct and broken, as its owner would, without settings or plugins; return the failed tests."""
    project = tmp_path_factory.mktemp("project")
    for kind, files in KINDS.items():
        write(project / kind, files)
    for number, (kind, right, wrong, _) in enumerate(FAULTS):
        module = next(iter(KINDS[kind]))
        assert right in KINDS[kind][module]
        broken = KINDS[kind][module].replace(right, wrong).replace("\n\n\n@", "\n\nKEPT = []\n\n@", 1)
        write(project / str(number), KINDS[kind] | {module: broken})
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    environment |= {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    failures: defaultdict[str, list[str]] = defaultdict(list)
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "--rootdir", str(project), str(project)]
    ran = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    for folder, test, outcome in re.findall(
        r"^(\w+)/\S+::(test_\w+).* (PASSED|FAILED|ERROR) ", ran.stdout, re.MULTILINE
    ):
        failures[folder] += [] if outcome == "PASSED" else [test]
    assert failures.keys() == KINDS.keys() | set(map(str, range(len(FAULTS)))), ran.stdout + ran.stderr
    return failures


def write(folder: Path, files: dict[str, str]) -> None:
    """Write modules under unique names: pytest imports all tests of a project into one process."""
    folder.mkdir()
    module, test = files
    own = f"{Path(module).stem}_{folder.name}"
    (folder / f"{own}.py").write_text(files[module], encoding="utf-8")
    source = files[test].replace(f"from {Path(module).stem} import", f"from {own} import")
    (folder / f"test_{own}.py").write_text(source, encoding="utf-8")


@pytest.mark.parametrize("kind", KINDS)
def test_a_third_party_kind_conforms(kind: str, failed: dict[str, list[str]]) -> None:
    """The source and the wire are those of CONTRIBUTING.md."""
    assert failed[kind] == []


@pytest.mark.parametrize("number", range(len(FAULTS)), ids=[f"{kind}: {wrong}" for kind, _, wrong, _ in FAULTS])
def test_the_suite_catches_each_fault(number: int, failed: dict[str, list[str]]) -> None:
    *_, caught_by = FAULTS[number]
    assert any(caught_by in test for test in failed[str(number)]), failed[str(number)]
