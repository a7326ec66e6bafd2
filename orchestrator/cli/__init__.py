"""FLOOR 6: the command line; one verb, one file."""

from orchestrator.cli.app import app


def main() -> None:
    """The `orchestrator` command."""
    app()


__all__ = ["main"]
