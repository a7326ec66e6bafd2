"""Options that may stand without their value."""

from __future__ import annotations

import pytest
import typer

from orchestrator.cli.app import app
from orchestrator.cli.on_call import CommandOnCall


def parsed(name: str, *arguments: str) -> dict[str, object]:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    command = group.commands[name]
    assert isinstance(command, CommandOnCall)
    return command.make_context(name, [*arguments]).params


@pytest.mark.parametrize("name", ["plan", "run"])
def test_a_canary_has_32_items_unless_a_number_follows(name: str) -> None:
    for arguments in (["--canary", "01_job.py"], ["01_job.py", "--canary"], ["--canary", "--json", "01_job.py"]):
        found = parsed(name, *arguments)
        assert (found["canary"], str(found["jobfile"])) == (32, "01_job.py")
    for arguments in (["--canary", "8", "01_job.py"], ["--canary=8", "01_job.py"], ["01_job.py", "--canary", "8"]):
        assert parsed(name, *arguments)["canary"] == 8
    assert parsed(name, "01_job.py")["canary"] is None


@pytest.mark.parametrize("number", ["0", "-5", "1.5", "64x"])
def test_what_was_meant_as_a_number_is_not_taken_for_a_job_file(number: str) -> None:
    with pytest.raises(typer.BadParameter, match="Input should be"):
        parsed("run", "--canary", number, "job.py")
