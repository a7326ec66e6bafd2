"""orchestrator report: what became of a night, or of a run, for a terminal, a program and a browser."""

from __future__ import annotations

from orchestrator.cli.report.command import report

__all__ = ["report"]
