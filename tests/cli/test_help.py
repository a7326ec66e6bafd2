"""Help on a terminal of 80 columns: commands are grouped by purpose, and no word is broken or cut."""

from __future__ import annotations

import re
from inspect import cleandoc
from typing import TYPE_CHECKING

import pytest
import typer
from typer import rich_utils
from typer.core import TyperGroup
from typer.testing import CliRunner

from orchestrator.cli.app import app
from orchestrator.cli.on_call import CommandOnCall

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typer._click.core import Command


def commands(command: Command, *path: str) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, TyperGroup):
        for name, inner in command.commands.items():
            yield from commands(loaded(inner), *path, name)


def loaded(command: Command) -> Command:
    return command.loaded() if isinstance(command, CommandOnCall) else command


def on_call(command: Command) -> Iterator[CommandOnCall]:
    if isinstance(command, CommandOnCall):
        yield command
    command = loaded(command)
    if isinstance(command, TyperGroup):
        for inner in command.commands.values():
            yield from on_call(inner)


def shown(path: tuple[str, ...], columns: int) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rich_utils, "MAX_WIDTH", columns)  # typer reads TERMINAL_WIDTH into this, once
        done = CliRunner().invoke(app, [*path, "--help"])
    assert done.exit_code == 0
    assert any(len(line) == columns for line in done.output.splitlines())
    return done.output


@pytest.mark.parametrize("path", [*commands(typer.main.get_command(app))], ids=" ".join)
def test_at_80_columns_no_word_is_broken(path: tuple[str, ...]) -> None:
    narrow, wide = (re.sub(r"[│╭╮╰╯─]", " ", shown(path, columns)).split() for columns in (80, 400))
    assert set(narrow) <= set(wide)


@pytest.mark.parametrize("command", [*on_call(typer.main.get_command(app))], ids=lambda command: command.name)
def test_the_list_of_commands_says_of_each_what_its_own_help_begins_with(command: CommandOnCall) -> None:
    assert command.help == cleandoc(command.loaded().help or "").split("\n\n", maxsplit=1)[0].replace("\n", " ")


def test_commands_are_grouped_by_purpose() -> None:
    panels = dict(re.findall(r"╭─ ([^─]+) ─+╮\n(.*?)╰", shown((), 80), re.DOTALL))
    grouped = {name: re.findall(r"^│ (\w+)", text, re.MULTILINE) for name, text in panels.items()}
    assert list(grouped) == ["Options", "Run a job", "Look", "Queue", "Endpoints", "Keep the ledger"]
    assert grouped["Run a job"][:2] == ["plan", "run"]
    assert grouped["Queue"] == ["submit", "queue", "prioritize", "serve", "schedule"]
