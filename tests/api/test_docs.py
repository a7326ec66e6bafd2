"""The page about Python works from top to bottom."""

from __future__ import annotations

import re
import subprocess
import sys
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import run
from orchestrator.api.apps import AsyncApp, BlockingApp
from tests.servers import answer_to

if TYPE_CHECKING:
    from tests.commands import Workplace
    from tests.servers import InferenceServer

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text(encoding="utf-8")


def test_the_examples_on_the_page_run_one_after_the_other(workplace: Workplace, server: InferenceServer) -> None:
    script = workplace.folder / "script.py"
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
    assert code.count("http://127.0.0.1:8080/") == 1
    script.write_text(code.replace("http://127.0.0.1:8080/", server.url))
    command = [sys.executable, "-W", "error", str(script)]
    environment = workplace.environment()
    ran = subprocess.run(command, cwd=workplace.folder, env=environment, check=False, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    first, second, *_, failure = ran.stdout.splitlines()
    assert first.startswith("r1 Great battery. {")
    assert answer_to("The hinge broke.") in second
    assert "id" in failure


def test_the_page_names_every_argument_and_every_verb() -> None:
    listed = {
        name for row in re.findall(r"^\| (`[a-z`, ]+`) \|", PAGE, re.MULTILINE) for name in re.findall(r"\w+", row)
    }
    assert listed == signature(run).parameters.keys()
    for app in (BlockingApp, AsyncApp):
        assert all(f"`{verb}`" in PAGE for verb in vars(app) if not verb.startswith("_"))
