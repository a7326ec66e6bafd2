"""Commands that are imported when they are called, so that none of them takes the time that another one needs."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import typer
from typer.core import TyperCommand

from orchestrator.cli.options import Command

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typer._click.core import Command as AnyCommand
    from typer._click.core import Context


class CommandOnCall(TyperCommand):
    """A command, or a group of commands, of which the name and one line of help are known until it is called."""

    def __init__(self, home: str, **settings: Any) -> None:
        super().__init__(**settings)
        self._home = home

    def loaded(self) -> AnyCommand:
        """Import the command."""
        module, _, name = self._home.rpartition(".")
        found = getattr(import_module(module), name)
        if isinstance(found, typer.Typer):
            return typer.main.get_command(found)
        alone = typer.Typer(add_completion=False)
        alone.command(self.name, cls=Command)(found)
        return typer.main.get_command(alone)

    def make_context(
        self, info_name: str | None, args: list[str], parent: Context | None = None, **extra: Any
    ) -> Context:
        """Parse the arguments of the command itself: what is called, or completes words, goes on with its context."""
        return self.loaded().make_context(info_name, args, parent, **extra)


def add_on_call(
    app: typer.Typer, package: str, commands: Mapping[str, str], *, panel: str | None = None, hidden: bool = False
) -> None:
    """Add commands, which are in modules of a package, to an application.

    Args:
        app: The application or group.
        package: Where the modules are.
        commands: By `module.function`, the first paragraph of each command's help.
        panel: The panel of the help in which they are listed, if it is not the usual one.
        hidden: Whether help leaves them out.

    """
    for home, line in commands.items():
        app.command(
            home.rpartition(".")[2].strip("_").replace("_", "-"),
            cls=cast("type[TyperCommand]", partial(CommandOnCall, f"{package}.{home}")),
            help=line,
            rich_help_panel=panel,
            hidden=hidden,
        )(_nothing)


def _nothing() -> None:
    """Stand for the function of a command that is not imported yet."""
